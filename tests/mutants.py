"""Planted faults: does every guarantee's test go red when the guarantee is broken?

    python tests/mutants.py            all of them; exits 1 if one survives
    python tests/mutants.py NAME ...   those whose names begin so
    python tests/mutants.py --list     the table without running anything
    python tests/mutants.py --jobs 4   four at a time

Each mutant is one edit of the package's source. The script copies the package to a temporary
directory, makes the edit there, runs the named test with PYTHONPATH pointing at the copy, and
expects it to fail. A snippet that does not stand exactly once in its file is an error, so the list
cannot rot unseen; so is a test that fails without any mutant.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from planted_faults import MUTANTS
from planted_faults.mutant import Mutant

ROOT = Path(__file__).resolve().parents[1]
TIMEOUT_S = 300

_VERDICTS = {True: "no", False: "yes", None: "no: the test cannot run with it"}
"""By whether the test passed."""


def misplaced() -> list[str]:
    """Say which snippets do not stand exactly once in their files."""
    counts = [(mutant, (ROOT / "kvzmq" / mutant.file).read_text().count(mutant.snippet)) for mutant in MUTANTS]
    return [
        f"{mutant.name}: the snippet stands {count} times in {mutant.file}" for mutant, count in counts if count != 1
    ]


def run(mutant: Mutant | None, test: str, scratch: Path) -> bool | None:
    """Run one test against a copy of the package, mutated or not; say if it passed, None if it could not run."""
    home = Path(tempfile.mkdtemp(dir=scratch))
    shutil.copytree(ROOT / "kvzmq", home / "kvzmq", ignore=shutil.ignore_patterns("__pycache__"))
    if mutant is not None:
        path = home / "kvzmq" / mutant.file
        path.write_text(path.read_text().replace(mutant.snippet, mutant.replaced))
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", str(ROOT / test)]
    environment = os.environ | {"PYTHONPATH": str(home), "KVZMQ_MUTANT": "1"}
    with subprocess.Popen(
        command,
        env=environment,
        cwd=ROOT / "tests",
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            said, _ = process.communicate(timeout=TIMEOUT_S)
        except subprocess.TimeoutExpired:
            return False  # a test that hangs does not pass
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # with the servers it has started
            shutil.rmtree(home)
    if process.returncode not in (0, 1):
        print(f"{test}: pytest could not run it\n{said}", file=sys.stderr)
        return None
    return process.returncode == 0


def main() -> int:
    """Run the mutants that were asked for and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*")
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args()
    if found := misplaced():
        parser.error("\n".join(found))
    chosen = [m for m in MUTANTS if not options.names or any(m.name.startswith(name) for name in options.names)]
    print("| mutant | guarantee | test | caught |\n|---|---|---|---|")
    if options.list:
        for mutant in chosen:
            print(f"| {mutant.name} | {mutant.guarantee} | `{mutant.test}` | |")
        return 0
    started_s = time.monotonic()
    survived = 0
    with tempfile.TemporaryDirectory(prefix="kvzmq-mutants-") as scratch, ThreadPoolExecutor(options.jobs) as pool:
        tests = sorted({mutant.test for mutant in chosen})
        sound = dict(zip(tests, pool.map(lambda test: run(None, test, Path(scratch)), tests)))
        passed = pool.map(lambda mutant: run(mutant, mutant.test, Path(scratch)), chosen)
        for mutant, missed in zip(chosen, passed):
            verdict = "no: the test fails without it" if not sound[mutant.test] else _VERDICTS[missed]
            survived += verdict != "yes"
            print(f"| {mutant.name} | {mutant.guarantee} | `{mutant.test}` | {verdict} |", flush=True)
    print(f"\n{len(chosen)} mutants, {survived} not caught, {time.monotonic() - started_s:.0f} s")
    return 1 if survived else 0


if __name__ == "__main__":
    sys.exit(main())
