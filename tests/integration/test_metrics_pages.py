"""A server with `--metrics`, and a real Prometheus that scrapes it and loads the alert rules."""

from __future__ import annotations

import json
import os
import re
import subprocess
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from support.servers import PATIENCE_S, DidNotStart, ServerProcess, free_port, wait_until
from support.wire import WireClient

ROOT = Path(__file__).parents[2]


def get(url: str, token: str | None = None) -> str:
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=PATIENCE_S) as answer:
        return str(answer.read().decode())


def get_when_ready(url: str) -> str:
    """Return the page, or nothing while there are no figures yet."""
    try:
        return get(url)
    except urllib.error.HTTPError as error:
        assert error.code == 503
        return ""


def metrics_of(server: ServerProcess) -> str:
    """Return the address of the page, as the server's log says it."""
    wait_until(lambda: "metrics on " in server.stderr, what="the address of the metrics")
    return str(re.findall(r"metrics on (\S+)", server.stderr)[-1])


def samples(page: str) -> dict[str, float]:
    return {
        sample.name + "".join(f" {value}" for value in sample.labels.values()): sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
    }


def test_a_server_shows_its_figures_and_counts_go_on(tmp_path: Path) -> None:
    with ServerProcess(tmp_path / "data", "--metrics", "127.0.0.1:0") as server:
        url = metrics_of(server)
        wait_until(lambda: "kvzmq_rows" in get_when_ready(url), what="the first figures")
        with WireClient(server.url, session=None) as wire:
            for number in range(20):
                wire.call("insert", f"k{number}", number)
        wait_until(lambda: samples(get(url)).get("kvzmq_operations_total insert") == 20, what="20 inserts")
        found = samples(get(url))
        assert found["kvzmq_rows"] == 20 and found["kvzmq_log_sync_seconds_count"] == 20
        assert found["kvzmq_disk_free_bytes"] > 0 and found["kvzmq_descriptors"] > 3
        assert get(url.replace("/metrics", "/ready")) == "ok\n"
        assert server.terminate() == 0


def test_metrics_are_refused_where_other_machines_reach_them(tmp_path: Path) -> None:
    with pytest.raises(DidNotStart) as refused:
        ServerProcess(tmp_path / "data", "--metrics", "0.0.0.0:0")
    assert refused.value.exit_code == 3 and "use 127.0.0.1" in refused.value.stderr
    (tmp_path / "empty").write_text("\n")
    with pytest.raises(DidNotStart) as refused:
        ServerProcess(tmp_path / "data", "--metrics", "0", "--metrics-token", str(tmp_path / "empty"))
    assert refused.value.exit_code == 3 and "is empty" in refused.value.stderr
    with pytest.raises(DidNotStart) as refused:
        ServerProcess(tmp_path / "data", "--metrics-token", str(tmp_path / "empty"))
    assert refused.value.exit_code == 2


def test_promtool_finds_nothing_to_mend_in_the_page_and_the_rules(tmp_path: Path) -> None:
    with ServerProcess(tmp_path / "data", "--metrics", "127.0.0.1:0") as server:
        url = metrics_of(server)
        with WireClient(server.url, session=None) as wire:
            wire.call("lookup", "ghost")
        wait_until(lambda: "NoSuchKey" in get_when_ready(url), what="the figures")
        page = get(url)
    checked = subprocess.run(["promtool", "check", "metrics"], input=page, capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    rules = subprocess.run(
        ["promtool", "check", "rules", str(ROOT / "ops" / "alerts.yml")], capture_output=True, text=True, check=False
    )
    assert rules.returncode == 0 and "15 rules found" in rules.stdout


def test_a_real_prometheus_scrapes_it_with_a_token_and_evaluates_the_rules(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("sesame\n")
    with ServerProcess(
        tmp_path / "data", "--metrics", "127.0.0.1:0", "--metrics-token", str(tmp_path / "token")
    ) as server:
        target = metrics_of(server).removeprefix("http://").removesuffix("/metrics")
        with WireClient(server.url, session=None) as wire:
            wire.call("insert", "a", 1)
        port = free_port()
        (tmp_path / "prometheus.yml").write_text(f"""
global: {{scrape_interval: 1s, evaluation_interval: 1s}}
rule_files: [{ROOT}/ops/alerts.yml]
scrape_configs:
  - job_name: kvzmq
    authorization: {{credentials_file: {tmp_path}/token}}
    static_configs: [{{targets: ["{target}"]}}]
""")
        prometheus = subprocess.Popen(
            ["prometheus", f"--config.file={tmp_path}/prometheus.yml", f"--storage.tsdb.path={tmp_path}/tsdb",
             f"--web.listen-address=127.0.0.1:{port}"],
            stdout=subprocess.DEVNULL, stderr=(tmp_path / "said").open("w"), env=os.environ,
        )  # fmt: skip

        def ask(path: str) -> Any:
            try:
                return json.loads(get(f"http://127.0.0.1:{port}/api/v1/{path}"))["data"]
            except OSError:
                return None

        try:
            wait_until(
                lambda: [one["value"][1] for one in (ask("query?query=kvzmq_operations_total") or {}).get("result", [])
                         if one["metric"]["operation"] == "insert"] == ["1"],
                what=f"the figures in Prometheus, see {tmp_path / 'said'}",
            )  # fmt: skip

            def evaluated() -> bool:
                (group,) = (ask("rules") or {"groups": [{"rules": [{"health": "unknown"}]}]})["groups"]
                return all(rule["health"] == "ok" for rule in group["rules"])

            wait_until(evaluated, what="the evaluation of all rules")

            def are_inactive() -> bool:
                """A scrape that a busy machine did not answer within its second is a server that is down, to a rule."""
                (group,) = (ask("rules") or {"groups": [{"rules": []}]})["groups"]
                states = {rule["name"]: rule["state"] for rule in group["rules"]}
                return len(states) == 15 and states["KvzmqDown"] == states["KvzmqCannotWrite"] == "inactive"

            wait_until(are_inactive, what="15 rules, and nothing wrong")
        finally:
            prometheus.terminate()
            prometheus.wait(PATIENCE_S)
