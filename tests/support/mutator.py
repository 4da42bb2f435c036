"""Requests that are nearly right, for fuzzing."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import msgspec

CLAIMS = (b"\xdd\xff\xff\xff\xff", b"\xc9\x7f\xff\xff\xff\x01", b"\xc6\xff\xff\xff\xff", b"\x91" * 2000)
"""Heads of an array, an extension and bytes that claim far more than follows; and a deep nest."""

VALUES: list[Any] = [
    None, True, 0, -1, 1, 127, 128, 2**31, -(2**63), 2**64 - 1, 0.5, "", "key", "é\u0000\n", b"", b"\xff" * 20, [], {},
    [1, [2, [3]]], {"a": {"b": [None]}}, "x" * 300,
]  # fmt: skip

REQUESTS: list[list[Any]] = [
    ["open"], ["insert", "key", {"a": 1}], ["insert", "key", [1, 2.5, None], 60.0], ["remove", "key"],
    ["insert_many", {"key": 1, "b": [2]}], ["remove_many", ["key", "b"]], ["compare_and_set", "key", [1], [2]],
    ["compare_and_set", "key", [], ["new"]], ["setdefault", "key", 1], ["increment", "n"], ["increment", "n", 1.5],
    ["expire", "key", 10.0], ["lookup", "key"], ["lookup_many", ["key", "b"]], ["size"], ["query", "a", 1],
    ["keys", "", None, 10], ["items", "k", "key", 5], ["ttl", "key"], ["ping"], ["stats"],
    ["transaction", [["key", [1]], ["b", []]], [["insert", "t", 1], ["remove", "b"], ["lookup", "key"]]],
]  # fmt: skip


class Mutator:
    """Makes requests that are nearly right."""

    def __init__(self, seed: int) -> None:
        self.dice = random.Random(seed)

    def frame(self) -> bytes:
        dice = self.dice
        message: Any = [
            None,
            dice.randrange(1, 1 << 20),
            [list(dice.choice(REQUESTS)) for _ in range(dice.choice([1, 1, 1, 3]))],
        ]
        if dice.random() < 0.3:
            message[0] = dice.randbytes(16)
        for _ in range(dice.choice([0, 1, 1, 2])):
            message = self.replace_somewhere(message)
        data = msgspec.msgpack.encode(message)
        for _ in range(dice.choice([0, 0, 1, 1, 3])):
            data = self.spoil(data)
        return data

    def replace_somewhere(self, node: Any) -> Any:
        dice = self.dice
        if isinstance(node, list) and node and dice.random() < 0.85:
            position = dice.randrange(len(node))
            kind = dice.random()
            if kind < 0.1:
                return node[:position] + node[position + 1 :]
            if kind < 0.2:
                return node[:position] + [dice.choice(VALUES)] + node[position:]
            return node[:position] + [self.replace_somewhere(node[position])] + node[position + 1 :]
        if isinstance(node, dict) and node and dice.random() < 0.5:
            return {
                dice.choice([key, key, key, 1, b"k", "k" * 70_000]): self.replace_somewhere(node[key]) for key in node
            }
        return dice.choice(VALUES)

    def spoil(self, data: bytes) -> bytes:
        dice = self.dice
        at = dice.randrange(len(data) + 1)
        ways: list[Callable[[], bytes]] = [
            lambda: data[:at],
            lambda: data[:at] + dice.randbytes(dice.randrange(1, 9)) + data[at:],
            lambda: data[:at] + bytes([dice.randrange(256)]) + data[at + 1 :],
            lambda: data[:at] + data[at : at + 4] * dice.randrange(2, 300) + data[at:],
            lambda: data[:at] + dice.choice(CLAIMS) + data[at:],
        ]
        return dice.choice(ways)()
