"""`kvzmq keygen`: what it writes, and what it does not write over."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
import zmq.auth
from click.testing import CliRunner

from kvzmq.cli import main
from kvzmq.server.access import parse_clients


def keygen(*arguments: str, code: int = 0) -> tuple[str, str]:
    result = CliRunner().invoke(main, ["keygen", *arguments], prog_name="kvzmq")
    assert result.exit_code == code, result.output
    return result.stdout, result.stderr


def test_it_writes_two_files_for_their_owner_alone_as_zmq_auth_reads_them(tmp_path: Path) -> None:
    """Red when the files had the permissions that the umask leaves."""
    place = tmp_path / "new" / "keys"
    umask = os.umask(0)
    try:
        keygen("bob", "--dir", str(place))
        assert os.umask(0) == 0, "the umask is as it was"
    finally:
        os.umask(umask)
    assert sorted(path.name for path in place.iterdir()) == ["bob.key", "bob.key_secret"]
    assert {stat.S_IMODE(path.stat().st_mode) for path in place.iterdir()} == {0o600}
    assert stat.S_IMODE(place.stat().st_mode) == 0o700
    public, secret = zmq.auth.load_certificate(place / "bob.key_secret")
    assert zmq.auth.load_certificate(place / "bob.key") == (public, None)
    assert secret is not None and zmq.curve_public(secret) == public


def test_it_prints_the_line_for_the_clients_file_and_says_what_to_do(tmp_path: Path) -> None:
    line, help_text = keygen("bob", "--dir", str(tmp_path))
    (key, client), *others = parse_clients(line).items()
    assert not others and client.name == "bob" and client.prefixes == ()
    assert key.encode() == zmq.auth.load_certificate(tmp_path / "bob.key")[0]
    for word in ("--clients", "--curve-key", "--server-key", str(tmp_path / "bob.key_secret")):
        assert word in help_text


@pytest.mark.parametrize("there", ["bob.key", "bob.key_secret"])
def test_it_writes_no_key_over(tmp_path: Path, there: str) -> None:
    """Red when the files were renamed into their places."""
    (tmp_path / there).write_text("precious")
    _, error = keygen("bob", "--dir", str(tmp_path), code=3)
    assert (
        f"{tmp_path / there}: it is there already, and keys are not written over; choose another NAME or --dir" in error
    )
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {there: "precious"}


@pytest.mark.parametrize("name", ["", "../bob", "a b", ".bob", "b" * 65, "b\n"])
def test_a_name_is_one_that_the_clients_file_takes(tmp_path: Path, name: str) -> None:
    _, error = keygen("--dir", str(tmp_path), "--", name, code=2)
    assert "a name is up to 64 letters" in error
    assert list(tmp_path.iterdir()) == []
