"""Keys and the files they are in."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import zmq.auth
from hypothesis import given
from hypothesis import strategies as st
from support.curve import BOB, SERVER
from zmq.utils import z85

from kvzmq.curve import BadKey, ClientKeys, KeyPair, client_keys, is_key, read_key_pair, read_token


def test_a_file_of_zmq_auth_is_read(tmp_path: Path) -> None:
    _, path = zmq.auth.create_certificates(tmp_path, "bob", {"team": "robots"})
    Path(path).chmod(0o600)
    public, secret = zmq.auth.load_certificate(path)
    assert secret is not None
    assert read_key_pair(path) == KeyPair(public.decode(), secret.decode())


def test_a_secret_key_is_not_printed() -> None:
    assert BOB.secret not in f"{ClientKeys(KeyPair(*BOB), SERVER.public, 'bob.key_secret')}"


@given(st.binary(min_size=32, max_size=32))
def test_every_key_is_one(key: bytes) -> None:
    assert is_key(z85.encode(key).decode())


@pytest.mark.parametrize(
    "text", ["", BOB.public[:-1], BOB.public + "0", "~" * 40, "#" * 40, "é" * 40, "\0" * 40], ids=range(7)
)
def test_what_is_no_key_is_none(text: str) -> None:
    """The 40 `#` are more than 32 bytes: libzmq refuses them, too."""
    assert not is_key(text)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660])
def test_a_secret_key_that_others_may_read_is_refused(tmp_path: Path, mode: int) -> None:
    path = BOB.write(tmp_path / "bob.key_secret")
    assert read_key_pair(path) == KeyPair(*BOB)
    path.chmod(mode)
    with pytest.raises(BadKey, match=r"may be read by others: chmod 600 .*bob\.key_secret"):
        read_key_pair(path)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "holds no secret key"),
        (f'curve\n    public-key = "{BOB.public}"\n', "holds no secret key"),
        (f'secret-key = "{BOB.secret}"\n', "has no public-key of 40 characters"),
        (f'public-key = "{BOB.public}"\nsecret-key = "x"\n', "has no secret-key of 40 characters"),
        ("\xff\0" * 100_000, "holds no secret key"),
    ],
    ids=["empty", "public", "secret", "short", "binary"],
)
def test_a_file_without_keys_is_refused(tmp_path: Path, text: str, fault: str) -> None:
    path = tmp_path / "bob.key_secret"
    path.write_text(text)
    path.chmod(0o600)
    with pytest.raises(BadKey, match=fault):
        read_key_pair(path)
    with pytest.raises(BadKey, match="cannot be read: No such file"):
        read_key_pair(tmp_path / "none")


def test_a_pickle_holds_the_path_not_the_keys(tmp_path: Path) -> None:
    keys = client_keys(BOB.write(tmp_path / "bob.key_secret"), SERVER.public)
    data = pickle.dumps(keys)
    assert BOB.secret.encode() not in data
    assert pickle.loads(data) == keys


def test_a_client_needs_both_keys(tmp_path: Path) -> None:
    path = BOB.write(tmp_path / "bob.key_secret")
    assert client_keys(None, None) is None
    assert client_keys(path, SERVER.public) == ClientKeys(KeyPair(*BOB), SERVER.public, str(path))
    with pytest.raises(BadKey, match="without server_key"):
        client_keys(path, None)
    with pytest.raises(BadKey, match="without curve_key"):
        client_keys(None, SERVER.public)
    with pytest.raises(BadKey, match="it is the public key of the server"):
        client_keys(path, "x")


def test_a_token_is_a_line_of_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text("0123456789abcdef\n")
    path.chmod(0o600)
    assert read_token(path) == b"0123456789abcdef"
    path.chmod(0o644)
    with pytest.raises(BadKey, match="may be read by others"):
        read_token(path)
    path.chmod(0o600)
    for text in ("", "short\n", "two lines of it\nwith enough bytes\n", "x" * 1025):
        path.write_text(text)
        with pytest.raises(BadKey, match="is no token, a line of 16 to 1024 bytes"):
            read_token(path)
    with pytest.raises(BadKey, match="cannot be read"):
        read_token(tmp_path / "none")
