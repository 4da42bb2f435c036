"""`kvzmq check`, `--repair`, `log` and `export DIR`, over directories made and damaged here."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from zlib import crc32

import pytest
from click.testing import Result
from support.commands import command
from support.witness import apply, commit

from kvzmq.protocol import msgpack
from kvzmq.protocol.messages import Request
from kvzmq.store.file import checkpoint, frames
from kvzmq.store.file.compaction import compact_sealed
from kvzmq.store.file.file_log import MAGIC, NAME, NAME_SEALED, FileLog
from kvzmq.store.file.files import DiskDirectory
from kvzmq.store.offline.check import inspect
from kvzmq.store.offline.reading import Reading, regions
from kvzmq.store.store import Store

TIME_US = 1_700_000_000_000_000
SESSION = bytes(range(16))


def request(*ops: Sequence[Any], session: bytes | None = None, seq: int = 1) -> Request:
    found = msgpack.decode_request(msgpack.encode_value((session, seq, ops)))
    assert isinstance(found, Request), found
    return found


class Builder:
    """Writes a table's directory, a group for each call, a second apart."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.groups = 0
        self._open()

    def _open(self) -> None:
        self.log = FileLog(DiskDirectory(self.path))
        self.store = Store(self.log)
        self.store.recover()
        self._closed = False

    def group(self, *ops: Sequence[Any], session: bytes | None = None, seq: int = 1) -> None:
        self.groups += 1
        apply(self.store, [request(*ops, session=session, seq=seq)], TIME_US + self.groups * 1_000_000)

    def rotate(self) -> None:
        self.log.seal()

    def compact(self) -> None:
        self.rotate()
        directory = DiskDirectory(self.path, lock=False)
        compact_sealed(directory)
        directory.close()

    def rows(self) -> dict[str, Any]:
        return {key: msgpack.decode_value(value) for key, value in sorted(self.store.table.rows.items())}

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self.store.close()


@pytest.fixture
def built(tmp_path: Path) -> Iterator[Builder]:
    builder = Builder(tmp_path / "data")
    yield builder
    builder.close()


def flip(path: Path, offset: int) -> None:
    data = bytearray(path.read_bytes())
    data[offset] ^= 0x40
    path.write_bytes(data)


def offsets(path: Path, magic: bytes = MAGIC) -> dict[int, tuple[int, int]]:
    """Return where each frame of a file begins and ends, by its number."""
    with Reading(path.parent) as reading:
        found = list(regions(reading.open(path.name), magic, path.name, last=True))
    return {frame.number: (frame.offset, frame.end) for frame in found if isinstance(frame, frames.Frame)}


def spoil(path: Path, *numbers: int, magic: bytes = MAGIC) -> None:
    """Flip a bit in the payload of frames."""
    found = offsets(path, magic)
    for number in numbers:
        flip(path, found[number][0] + frames.FRAME_BYTES)


def exported(path: Path) -> dict[str, Any]:
    result = command("export", path)
    assert result.exit_code == 0, result.stderr
    return {row["key"]: row["value"] for row in map(json.loads, result.stdout.splitlines())}


def state_of(path: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in sorted(path.iterdir())}


# ---- check


def test_check_says_what_is_there_and_what_recovery_would_do(built: Builder) -> None:
    for n in range(10):
        built.group(("insert", f"k{n}", n))
    built.compact()
    for n in range(5):
        built.group(("remove", f"k{n}"), ("size",))
    built.close()
    result = command("check", built.path)
    assert result.exit_code == 0
    assert "checkpoint of everything up to group 10" in result.stdout
    assert "log of 5 groups (11 to 15), 5 requests, 10 operations, 2023-11-14T22:13:31.000Z to" in result.stdout
    assert "recovery: loads the checkpoint of group 10, then replays 5 groups, up to 15" in result.stdout
    assert "table: 5 rows, revision 15, 0 sessions" in result.stdout
    assert result.stdout.endswith("no damage\n")


def test_check_as_json_has_the_same(built: Builder) -> None:
    built.group(("insert", "a", 1))
    built.close()
    report = json.loads(command("check", built.path, "--json").stdout)
    assert report["damaged"] is False and report["rows"] == 1 and report["revision"] == 1 and report["group"] == 1
    assert report["files"][0]["from_us"] == report["files"][0]["to_us"] == TIME_US + 1_000_000


def test_check_changes_nothing(built: Builder) -> None:
    built.group(("insert", "a", 1))
    built.close()
    with (built.path / NAME).open("ab") as file:
        file.write(b"torn")
    before = state_of(built.path)
    assert command("check", built.path).exit_code == 0
    assert command("export", built.path).exit_code == 0
    assert command("log", built.path).exit_code == 0
    assert state_of(built.path) == before


def test_check_takes_a_bad_end_for_a_torn_tail_and_not_for_damage(built: Builder) -> None:
    built.group(("insert", "a", 1))
    built.group(("insert", "b", 2))
    built.close()
    with (built.path / NAME).open("r+b") as file:
        file.truncate((built.path / NAME).stat().st_size - 3)
    result = command("check", built.path)
    assert result.exit_code == 0
    assert (
        "torn tail, never acknowledged" in result.stdout
        and "cuts it" in result.stdout
        and "table: 1 row," in result.stdout
    )


def test_check_finds_every_damaged_place_and_exits_with_1(built: Builder) -> None:
    for n in range(20):
        built.group(("insert", f"k{n}", n))
    built.close()
    spoil(built.path / NAME, 5, 15)
    result = command("check", built.path)
    assert result.exit_code == 1
    assert result.stdout.count("DAMAGED  offset") == 4  # two places, and after each a group that does not follow
    assert "a server refuses to start" in result.stdout


def test_check_finds_any_flipped_bit(built: Builder) -> None:
    """Every byte of checkpoint and log, but of the very last frame, which may be taken for a torn tail."""
    for n in range(4):
        built.group(("insert", f"k{n}", n), session=SESSION if n else None, seq=1)
    built.compact()
    for n in range(3):
        built.group(("insert", f"m{n}", n))
    built.close()
    last = offsets(built.path / NAME)[built.groups][0]
    for name, end in ((checkpoint.NAME, (built.path / checkpoint.NAME).stat().st_size), (NAME, last)):
        path = built.path / name
        whole = path.read_bytes()
        for offset in range(end):
            flip(path, offset)
            with Reading(built.path) as reading:
                assert inspect(reading).damaged, f"{name} offset {offset}"
            path.write_bytes(whole)


def test_check_reads_beside_a_server_and_says_so(built: Builder) -> None:
    built.group(("insert", "a", 1))
    result = command("check", built.path)  # `built` holds the lock
    assert result.exit_code == 0 and "in use: a server has the directory" in result.stdout


def test_a_reading_goes_on_with_the_files_it_opened(built: Builder) -> None:
    built.group(("insert", "a", 1))
    with Reading(built.path) as reading:
        built.compact()
        built.group(("insert", "b", 2))
        report = inspect(reading)
    assert not report.damaged and report.rows == 1 and [file.name for file in report.files] == [NAME]


def test_a_group_that_is_written_while_the_log_is_read_is_no_damage(
    built: Builder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The frame was not there when it was read, and the one after it was when it was looked for."""
    built.group(("insert", "a", 1))
    find_frame = frames.find_frame
    late = [("insert", "b", 2), ("insert", "c", 3)]

    def write_and_find(*arguments: Any) -> Any:
        while late:
            built.group(late.pop(0))
        return find_frame(*arguments)

    monkeypatch.setattr(frames, "find_frame", write_and_find)
    monkeypatch.setattr("kvzmq.store.offline.reading.ends_in_zeros", lambda *_: False)
    with Reading(built.path) as reading:
        built.group(("insert", "d", 4))
        report = inspect(reading)
    assert not report.damaged and report.rows == 3 and not late


def test_damage_is_found_beside_a_server_too(built: Builder) -> None:
    for n in range(5):
        built.group(("insert", f"k{n}", n))
    spoil(built.path / NAME, 3)
    assert command("check", built.path).exit_code == 1


def test_a_reading_cannot_write(built: Builder) -> None:
    with Reading(built.path) as reading:
        with pytest.raises(OSError):
            reading.open(NAME).write(0, b"x")
        changes: list[Callable[[], object]] = [
            lambda: reading.create("x"),
            lambda: reading.rename(NAME, "x"),
            lambda: reading.unlink(NAME),
            reading.sync,
        ]
        for refused in changes:
            with pytest.raises(OSError):
                refused()
    assert (built.path / NAME).exists()


def test_a_directory_without_a_table_is_refused(tmp_path: Path) -> None:
    for name in ("check", "export", "log"):
        result = command(name, tmp_path)
        assert result.exit_code == 3 and "holds no table" in result.stderr


def test_a_cut_off_rotation_is_no_damage(built: Builder) -> None:
    built.group(("insert", "a", 1))
    built.rotate()
    built.close()
    (built.path / NAME).unlink()
    result = command("check", built.path)
    assert result.exit_code == 0 and "table: 1 row," in result.stdout


def test_a_log_that_is_missing_beside_a_checkpoint_is_damage(built: Builder) -> None:
    built.group(("insert", "a", 1))
    built.compact()
    built.close()
    (built.path / NAME).unlink()
    result = command("check", built.path)
    assert result.exit_code == 1 and "is missing beside a checkpoint" in result.stdout


# ---- repair


def repaired(built: Builder) -> tuple[Path, dict[str, Any], Result]:
    before = state_of(built.path)
    output = built.path.with_name("saved")
    result = command("check", built.path, "--repair", "--output", output, "--json")
    assert result.exit_code == 0, result.stderr
    assert state_of(built.path) == before, "the original was touched"
    return output, json.loads(result.stdout), result


def later(output: Path) -> dict[str, Any]:
    path = output / "later.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    return {row["key"]: row.get("value", "REMOVED") for row in rows}


def test_repair_saves_the_table_as_it_was_before_the_damage(built: Builder) -> None:
    states = []
    for n in range(20):
        built.group(("insert", f"k{n % 7}", n), ("increment", "n"))
        states.append(built.rows())
    built.close()
    spoil(built.path / NAME, 11)
    output, found, _ = repaired(built)
    assert exported(output) == states[9]
    assert found["group"] == 10 and found["prefix"] is True and found["revision"] == 20
    assert "group 11 cannot be read" in found["left_out"]
    assert "groups 11 to 20: after the damage, so not in the table" in found["left_out"]


def test_repair_keeps_apart_what_is_known_again_after_the_damage(built: Builder) -> None:
    built.group(("insert", "before", 1))
    built.group(("insert", "lost", 1))
    built.group(("insert", "set", 1), ("increment", "set", 5))
    built.group(("insert", "gone", 1), ("remove", "gone"))
    built.group(("increment", "before", 1))
    built.group(("setdefault", "perhaps", 1))
    built.group(("compare_and_set", "fresh", [], [1]), ("insert", "fresh", 2), ("compare_and_set", "fresh", [2], [3]))
    built.group(("transaction", [["set", [6]]], [["insert", "both", 1]]))
    built.group(("transaction", [["set", [6]]], [["insert", "set", 7], ["remove", "gone2"]]), ("remove", "gone2"))
    built.close()
    spoil(built.path / NAME, 2)
    output, found, _ = repaired(built)
    assert exported(output) == {"before": 1}
    assert later(output) == {"fresh": 3, "gone": "REMOVED", "gone2": "REMOVED"}
    assert found["unknown"] == ["before", "both", "perhaps", "set"]


def test_what_repair_keeps_apart_agrees_with_the_true_table(built: Builder, full: bool) -> None:
    """Random operations with a hole: no row that is said to be known is wrong."""
    import random

    for seed in range(300 if full else 6):
        dice = random.Random(seed)
        path = built.path.with_name(f"random{seed}")
        random_built = Builder(path)
        for _ in range(60):
            key, other = dice.choices("abcdefgh", k=2)
            value = dice.randrange(3)
            random_built.group(dice.choice([
                ("insert", key, value), ("insert", key, value, dice.choice([2.5, 100.0])), ("remove", key),
                ("increment", key), ("setdefault", key, value), ("expire", key, None),
                ("compare_and_set", key, [value], dice.choice([[], [7]])),
                ("insert_many", {key: value, other: value}), ("remove_many", [key, other]),
                ("transaction", [[key, [value]]], [["insert", other, value], ["remove", key]]),
            ]))  # fmt: skip
        truth = random_built.rows()
        random_built.close()
        numbers = list(offsets(path / NAME))
        spoil(path / NAME, *dice.sample(numbers[:-10], dice.choice([1, 2])))
        output = path.with_name(f"saved{seed}")
        found = json.loads(command("check", path, "--repair", "--output", output, "--json").stdout)
        for key, value in later(output).items():
            assert truth.get(key, "REMOVED") == value, f"seed {seed}, key {key}"
        assert not set(later(output)) & set(found["unknown"])


def test_a_retry_logged_beside_the_first_counts_once(built: Builder) -> None:
    built.group(("insert", "a", 1))
    built.group(("insert", "b", 1))
    steps = (("insert", "n", 0), ("increment", "n"))
    twice = [request(*steps[1:], session=SESSION, seq=7) for _ in range(2)]
    frame = msgpack.encode_group(TIME_US + 9_000_000, [request(steps[0]).frame, *(one.frame for one in twice)])
    commit(built.log, frame)
    built.close()
    spoil(built.path / NAME, 2)
    output, _, _ = repaired(built)
    assert later(output) == {"n": 1}


def test_repair_of_a_sealed_log_leaves_out_the_log_after_it(built: Builder) -> None:
    for n in range(6):
        built.group(("insert", f"k{n}", n))
    built.rotate()
    built.group(("insert", "new", 1))
    built.close()
    spoil(built.path / NAME_SEALED, 6)
    output, _, _ = repaired(built)
    assert exported(output) == {f"k{n}": n for n in range(5)}
    assert later(output) == {"new": 1}


def test_repair_of_a_checkpoint_uses_the_log_if_that_has_everything(built: Builder) -> None:
    for n in range(6):
        built.group(("insert", f"k{n}", n))
    built.rotate()
    sealed = (built.path / NAME_SEALED).read_bytes()
    directory = DiskDirectory(built.path, lock=False)
    compact_sealed(directory)
    directory.close()
    built.close()
    (built.path / NAME_SEALED).write_bytes(sealed)  # as if killed between the rename and the removal
    spoil(built.path / checkpoint.NAME, 2, magic=checkpoint.MAGIC)
    output, found, _ = repaired(built)
    assert exported(output) == built.rows() and found["prefix"] is True


def test_repair_of_a_checkpoint_saves_the_rows_of_its_whole_sections(
    built: Builder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kvzmq.store.sections._SECTION_ITEMS", 5)
    built.group(("insert_many", {f"k{n:02}": n for n in range(20)}))
    built.compact()
    built.group(("increment", "k00"), ("increment", "k07"), ("insert", "k08", 88), ("insert", "new", 1))
    built.close()
    spoil(built.path / checkpoint.NAME, 3, magic=checkpoint.MAGIC)  # the rows k05 to k09
    output, found, _ = repaired(built)
    expected = built.rows()
    for key in ("k05", "k06", "k07", "k09"):
        del expected[key]
    assert exported(output) == expected and expected["k00"] == 1 and expected["k08"] == 88
    assert found["prefix"] is False and found["unknown"] == ["k07"]
    assert any("15 rows could be read, of 20" in line for line in found["left_out"])


def test_repair_reads_past_a_damaged_log_header(built: Builder) -> None:
    built.group(("insert", "a", 1))
    built.group(("insert", "b", 2))
    built.close()
    flip(built.path / NAME, 30)  # in the number of the first group
    output, _, _ = repaired(built)
    assert exported(output) == {"a": 1, "b": 2}


def test_a_file_of_a_version_to_come_is_not_interpreted(built: Builder) -> None:
    built.group(("insert", "a", 1))
    built.close()
    path = built.path / NAME
    data = bytearray(path.read_bytes())
    data[8] = 2
    data[36:40] = crc32(data[:36]).to_bytes(4, "little")
    path.write_bytes(data)
    for words in (("check",), ("check", "--repair")):
        result = command(*words, built.path)
        assert result.exit_code == 3 and "written by a newer version of kvzmq (format 2)" in result.stderr
    assert not built.path.with_name("data.repaired").exists()


def test_a_repaired_table_serves_and_remembers_its_sessions(built: Builder) -> None:
    built.group(("open",), session=SESSION, seq=1)
    built.group(("increment", "n"), session=SESSION, seq=2)
    built.group(("insert", "x", 1))
    built.group(("insert", "y", 1))
    built.close()
    spoil(built.path / NAME, 3)
    output, _, _ = repaired(built)
    again = Builder(output)
    retried = request(("increment", "n"), session=SESSION, seq=2)
    assert again.store.table.find_cached(retried)
    again.group(("insert", "z", 1))
    again.close()
    assert exported(output) == {"n": 1, "z": 1}
    assert command("check", output).exit_code == 0


def test_repair_does_not_write_where_something_is(built: Builder, tmp_path: Path) -> None:
    built.group(("insert", "a", 1))
    built.close()
    result = command("check", built.path, "--repair", "--output", tmp_path)
    assert result.exit_code == 2 and "exists" in result.stderr


def test_repair_waits_for_no_server_and_refuses_beside_one(built: Builder) -> None:
    built.group(("insert", "a", 1))
    result = command("check", built.path, "--repair")
    assert result.exit_code == 3 and "in use" in result.stderr
    assert not built.path.with_name("data.repaired").exists()


def test_repair_goes_beside_the_directory_by_default(built: Builder) -> None:
    built.group(("insert", "a", b"\x00"))
    built.close()
    result = command("check", built.path, "--repair")
    assert result.exit_code == 0 and "there was no damage" in result.stderr and "nothing was left out" in result.stdout
    assert (built.path.with_name("data.repaired") / checkpoint.NAME).stat().st_mode & 0o777 == 0o600


def test_repair_of_any_flipped_bit_gives_a_prefix_or_rows_that_are_right(built: Builder, full: bool) -> None:
    built.group(("insert_many", {f"k{n}": n for n in range(5)}))
    states = [{}, built.rows()]
    built.compact()
    for n in range(4):
        built.group(("insert", f"k{n}", n + 100))
        states.append(built.rows())
    built.close()
    from kvzmq.store.offline.repair import save

    for name in (checkpoint.NAME, NAME):
        path = built.path / name
        whole = path.read_bytes()
        for offset in range(0, len(whole), 1 if full else 5):
            flip(path, offset)
            with Reading(built.path) as reading:
                saved = save(reading)
            rows = {key: msgpack.decode_value(value) for key, value in saved.table.rows.items()}
            if saved.prefix:
                assert rows == states[saved.group], f"{name} offset {offset}"
            else:
                assert any(rows.items() <= state.items() for state in states), f"{name} offset {offset}"
            for key, (value, _) in saved.later.items():
                assert value is not None and msgpack.decode_value(value) == states[-1][key]
            path.write_bytes(whole)


# ---- log


def lines(*arguments: object) -> list[list[str]]:
    return [line.split("\t") for line in command("log", *arguments).stdout.splitlines()]


@pytest.fixture
def audited(built: Builder) -> Builder:
    built.group(("open",), session=SESSION, seq=1)
    built.group(("insert", "robots/1", {"x": 1}), ("lookup", "robots/1"), session=SESSION, seq=2)
    built.rotate()
    built.group(("remove_many", ["robots/1", "a b"]))
    built.group(("transaction", [["n", []]], [["increment", "n"]]), session=SESSION, seq=3)
    built.close()
    return built


def test_log_says_when_who_and_what_across_both_logs(audited: Builder) -> None:
    assert lines(audited.path) == [
        ["2023-11-14T22:13:21.000Z", "1", SESSION.hex(), "1", "open", "", "-"],
        ["2023-11-14T22:13:22.000Z", "2", SESSION.hex(), "2", "insert", "robots/1", "-"],
        ["2023-11-14T22:13:23.000Z", "3", "-", "1", "remove_many", "robots/1 a b", "-"],
        ["2023-11-14T22:13:24.000Z", "4", SESSION.hex(), "3", "transaction", "n", "-"],
    ]


@pytest.mark.parametrize(
    "filters, groups",
    [
        (["--key", "robots/1"], "23"),
        (["--key", "n", "--key", "a b"], "34"),
        (["--prefix", "robots/"], "23"),
        (["--session", SESSION.hex()[:6]], "124"),
        (["--since", "2023-11-14T22:13:23"], "34"),
        (["--until", "2023-11-14 22:13:23Z"], "12"),
        (["--since", "2023-11-14T23:13:23+01:00", "--until", "2023-11-15"], "34"),
        (["--since", "1h"], ""),
        (["--operation", "increment"], "4"),
        (["--operation", "open", "--operation", "insert"], "12"),
    ],
)
def test_log_shows_what_the_filters_let_through(audited: Builder, filters: list[str], groups: str) -> None:
    assert "".join(line[1] for line in lines(audited.path, *filters)) == groups


def test_log_as_json_has_the_arguments(audited: Builder) -> None:
    result = command("log", audited.path, "--json", "--operation", "insert")
    assert json.loads(result.stdout) == {
        "time": "2023-11-14T22:13:22.000Z", "group": 2, "session": SESSION.hex(), "client": None,
        "seq": 2, "operation": "insert", "keys": ["robots/1"], "arguments": ["robots/1", {"x": 1}, None],
    }  # fmt: skip
    assert lines(audited.path, "--values", "--operation", "insert")[0][-2] == '["robots/1",{"x":1},null]'


def test_log_shows_what_comes_after_damage_too_and_exits_with_1(built: Builder) -> None:
    for n in range(5):
        built.group(("insert", f"k{n}", n))
    built.close()
    spoil(built.path / NAME, 3)
    result = command("log", built.path)
    assert result.exit_code == 1
    assert [line.split("\t")[1] for line in result.stdout.splitlines()] == ["1", "2", "4", "5"]
    assert "cannot be read" in result.stderr


# ---- export


def test_export_of_a_directory_is_the_recovered_table_in_order(built: Builder) -> None:
    built.group(("insert_many", {"b": {"x": [1, None]}, "a\n": "ü", "c": b"\x00\xff", "d": [b""]}))
    built.compact()
    built.group(("remove", "b"))
    built.close()
    result = command("export", built.path)
    assert [json.loads(line) for line in result.stdout.splitlines()] == [
        {"key": "a\n", "value": "ü"},
        {"key": "c", "msgpack": "xAIA/w=="},
        {"key": "d", "msgpack": "kcQA"},
    ]


def test_export_keeps_times_to_live_as_moments(built: Builder) -> None:
    built.group(("insert", "a", 1, 100.5), ("insert", "b", 1))
    built.close()
    assert command("export", built.path).stdout == (
        '{"key":"a","value":1,"expires":"2023-11-14T22:15:01.500000Z"}\n{"key":"b","value":1}\n'
    )


def test_export_takes_a_prefix_and_an_output_file(built: Builder, tmp_path: Path) -> None:
    built.group(("insert_many", {"a1": 1, "a2": 2, "b": 3}))
    built.close()
    result = command("export", built.path, "--prefix", "a", "-o", tmp_path / "rows.jsonl")
    assert result.exit_code == 0 and result.stdout == ""
    assert (tmp_path / "rows.jsonl").read_text() == '{"key":"a1","value":1}\n{"key":"a2","value":2}\n{"rows":2}\n'


def test_export_of_a_directory_that_a_server_has_is_refused(built: Builder) -> None:
    result = command("export", built.path)
    assert result.exit_code == 3 and "in use by a kvzmq server" in result.stderr and result.stdout == ""


def test_export_of_a_damaged_directory_is_refused(built: Builder) -> None:
    built.group(("insert", "a", 1))
    built.group(("insert", "b", 1))
    built.close()
    spoil(built.path / NAME, 1)
    result = command("export", built.path)
    assert result.exit_code == 3 and "kvzmq check --repair" in result.stderr and result.stdout == ""


def test_only_a_servers_lock_counts(built: Builder) -> None:
    built.close()
    fd = os.open(built.path, os.O_RDONLY)
    fcntl.flock(fd, fcntl.LOCK_SH)  # another reader
    try:
        with Reading(built.path) as reading:
            assert not reading.in_use
    finally:
        os.close(fd)


def test_regions_cover_the_whole_file(built: Builder) -> None:
    for n in range(5):
        built.group(("insert", f"k{n}", n))
    built.close()
    path = built.path / NAME
    spoil(path, 2)
    flip(path, offsets_of_gap(path) + 4)
    with Reading(built.path) as reading:
        found = list(regions(reading.open(NAME), MAGIC, NAME, last=True))
    assert [part.end for part in found[:-1]] == [part.offset for part in found[1:]]
    assert found[0].offset == frames.HEADER_BYTES and found[-1].end == path.stat().st_size


def test_a_piece_of_the_log_stored_as_a_value_is_no_group(built: Builder) -> None:
    """The frame that holds the piece is torn: the piece must not be taken for what comes after damage."""
    built.group(("insert", "a", 1))
    begin, end = offsets(built.path / NAME)[1]
    piece = (built.path / NAME).read_bytes()[begin:end]
    built.group(("insert", "copy", piece))
    built.close()
    path = built.path / NAME
    path.write_bytes(path.read_bytes()[: offsets(path)[2][1] - 1])
    result = command("check", built.path)
    assert result.exit_code == 0 and "torn tail" in result.stdout and "table: 1 row," in result.stdout


def test_what_is_written_ahead_is_no_torn_tail(built: Builder) -> None:
    built.group(("insert", "a", 1))
    with (built.path / NAME).open("rb") as file:
        assert file.read().endswith(bytes(1000))
    result = command("check", built.path)  # beside the server, or after a kill
    assert result.exit_code == 0 and "torn" not in result.stdout and "being written" not in result.stdout
    assert command("log", built.path).exit_code == 0


def offsets_of_gap(path: Path) -> int:
    with Reading(path.parent) as reading:
        return next(
            part.offset
            for part in regions(reading.open(NAME), MAGIC, NAME, last=True)
            if not isinstance(part, frames.Frame)
        )
