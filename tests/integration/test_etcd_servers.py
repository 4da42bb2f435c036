"""`kvzmq server --log etcd://...`: options, security, backups and what a start refuses, with real processes."""

from __future__ import annotations

import itertools
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner
from support.etcd_cluster import ROOT_PASSWORD, EtcdCluster
from support.fleet import Fleet
from support.servers import KVZMQ, DidNotStart, ServerProcess, wait_until

import kvzmq
from kvzmq.cli import main


def test_a_secured_etcd_lets_servers_and_their_upkeep_in_and_nothing_secret_is_shown(tmp_path: Path) -> None:
    """Certificate, user and password go to the processes of the upkeep, too, and are in no command line or log."""
    password = tmp_path / "password"
    password.write_text(f"{ROOT_PASSWORD}\n")
    with EtcdCluster(tmp_path / "etcd", tls=True, auth=True) as etcd:
        assert etcd.tls is not None
        options = (
            "--etcd-ca", str(etcd.tls.authority), "--etcd-cert", str(etcd.tls.certificate),
            "--etcd-key", str(etcd.tls.key), "--etcd-user", "root", "--etcd-password-file", str(password),
            "--compact-after", "50", "--etcd-margin", "0",
        )  # fmt: skip
        with Fleet(tmp_path, etcd, "t", 2, *options) as fleet:
            children: set[str] = set()
            with kvzmq.connect(fleet.urls[0], timeout=60.0) as table:
                numbers, written = itertools.count(), dict[str, int]()

                def is_trimmed() -> bool:
                    """Write on, so that there is a further upkeep if the first was over before it was looked at."""
                    number = next(numbers)
                    written[f"k{number % 100}"] = number
                    table.insert(f"k{number % 100}", number)
                    for server in fleet.servers:
                        for child in server.children():
                            try:
                                children.add(Path(f"/proc/{child}/cmdline").read_text())
                            except OSError:
                                continue
                    return len(written) == 100 and bool(children) and bool(table.stats()["trimmed_position"])

                wait_until(is_trimmed, what="a trimmed log, and the processes of the upkeep")
            assert fleet.rows() == written
            said = "".join(server.stderr for server in fleet.servers) + "".join(children)
            assert ROOT_PASSWORD not in said and "PRIVATE KEY" not in said
        with pytest.raises(DidNotStart) as refused:
            ServerProcess(tmp_path / "stranger", "--log", fleet.log, *options[:6])
        assert refused.value.exit_code == 3


def test_a_backup_of_any_server_is_the_whole_table(etcd_cluster: EtcdCluster, etcd_name: str, tmp_path: Path) -> None:
    with Fleet(tmp_path, etcd_cluster, etcd_name, 2) as fleet, kvzmq.connect(fleet.urls[0], timeout=60.0) as table:
        table.insert_many({f"k{number}": number for number in range(500)})
        for turn in range(2):
            table.insert("turn", turn)
            backup, restored = tmp_path / f"backup{turn}", tmp_path / f"restored{turn}"
            done = CliRunner().invoke(main, ["-c", fleet.urls[1 - turn], "backup", str(backup)])
            assert done.exit_code == 0, done.output
            done = CliRunner().invoke(main, ["restore", str(backup), "--data", str(restored)])
            assert done.exit_code == 0, done.output
            with ServerProcess(restored) as server, kvzmq.connect(server.url) as copy:
                assert dict(copy) == dict(table)


def test_a_directory_with_a_table_of_its_own_and_options_without_a_log_are_refused(tmp_path: Path) -> None:
    with ServerProcess(tmp_path / "data"):
        pass
    refused = subprocess.run(
        [*KVZMQ, "server", "--data", str(tmp_path / "data"), "--log", "etcd://127.0.0.1:1/t"],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert refused.returncode == 3 and "holds a table of its own" in refused.stderr
    for words, said in (
        (["--new-epoch"], "add --log"),
        (["--log", "etcd://h:1/t", "--etcd-user", "root"], "go together"),
        (["--log", "etcd://h:1/t", "--etcd-cert", "x"], "go together"),
        (["--log", "etcd://h:1"], "names no table"),
    ):
        done = CliRunner().invoke(main, ["server", *words])
        assert done.exit_code == 2 and said in done.output, done.output


def test_a_server_whose_etcd_cannot_be_reached_says_so(tmp_path: Path) -> None:
    with pytest.raises(DidNotStart) as refused:
        ServerProcess(tmp_path / "data", "--log", "etcd://127.0.0.1:1/t")
    assert refused.value.exit_code == 3
    assert "127.0.0.1:1" in refused.value.stderr and "Traceback" not in refused.value.stderr


def test_servers_that_are_killed_leave_no_keys_for_ever(
    etcd_cluster: EtcdCluster, etcd_name: str, tmp_path: Path
) -> None:
    """Each start removes what the kill before has left; a server that stops removes its own."""
    with Fleet(tmp_path, etcd_cluster, etcd_name, 2) as fleet:
        for number in range(3):
            for server in fleet.servers:
                with kvzmq.connect(server.url, timeout=60.0) as table:
                    table.insert("k", number)
                server.restart()
        with kvzmq.connect(fleet.urls[0], timeout=60.0) as table:
            table.insert("k", 3)
        keys = etcd_cluster.ctl("get", "--prefix", "--keys-only", f"{etcd_name}/server/").split()
        assert len(keys) == 2
        for server in fleet.servers:
            assert server.terminate() == 0
        assert etcd_cluster.ctl("get", "--prefix", "--keys-only", f"{etcd_name}/server/").split() == []
