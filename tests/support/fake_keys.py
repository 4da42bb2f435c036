"""The keys of an etcd, in memory: revisions, transactions and ranges as `store.etcd.checkpoints` asks for them.

Before each call `before` is called, with its name and keys: there a test ends the caller, or lets another one work.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from kvzmq.store.etcd.checkpoints import Found, Puts, Ranges, Values


class FakeKeys:
    """An etcd without a network."""

    def __init__(self) -> None:
        self.revision = 1
        self.values: dict[str, tuple[bytes, int]] = {}
        """Each key's value and the revision at which it was put."""
        self.compacted = 0
        self.before: Callable[[str], None] = lambda call: None
        self.repeats = False
        """Whether each transaction is executed twice, as if its first answer was lost."""
        self.bytes_max = 0
        """The longest value that was put."""

    def get(self, *keys: str) -> tuple[int, dict[str, Found]]:
        self.before(" ".join(("get", *keys)))
        return self.revision, {key: Found(key, *self.values[key]) for key in keys if key in self.values}

    def list(self, prefix: str, after: str, limit: int, put_until: int = 0) -> Sequence[Found]:
        self.before("list")
        keys = sorted(key for key in self.values if key.startswith(prefix) and key > after)
        found = [Found(key, b"", self.values[key][1]) for key in keys]
        return [one for one in found if not put_until or one.put_at <= put_until][:limit]

    def transact(self, equal: Values, put: Puts = (), delete: Ranges = ()) -> int | None:
        self.before("transact")
        if self.repeats:
            self._execute(equal, put, delete)
        return self._execute(equal, put, delete)

    def _execute(self, equal: Values, put: Puts, delete: Ranges) -> int | None:
        if any((self.values[key][0] if key in self.values else None) != value for key, value in equal):
            return None
        self.revision += 1
        for first, end in delete:
            for key in [key for key in self.values if first <= key < end]:
                del self.values[key]
        for key, value in put:
            self.values[key] = value, self.revision
            self.bytes_max = max(self.bytes_max, len(value))
        return self.revision

    def delete(self, first: str, end: str) -> None:
        self.before("delete")
        self._execute((), (), [(first, end)])

    def compact(self, revision: int) -> None:
        self.before("compact")
        self.compacted = max(self.compacted, revision)

    def append(self, name: str, server: str, seq: int, group: bytes = b"group") -> int:
        """Put a group, as a server does; returns when, by etcd's revision."""
        number = self.transact([], put=[(f"{name}/log/{server}/{seq:016x}", group)])
        assert number is not None
        return number
