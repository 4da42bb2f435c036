"""What the keys have chosen: the order of the clients and operations, the filter, pause, help. No I/O."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from kvzmq.observing.rates import ClientRates, OperationRates, Rates

FILTER_CHARS_MAX = 100
INTERVALS_S = (0.25, 0.5, 1.0, 2.0, 5.0, 10.0)
"""What + and - choose among. A quarter of a second costs a busy server 1 % with a few clients."""

CLIENT_ORDERS: Mapping[str, Callable[[ClientRates], float]] = {
    "requests/s": lambda one: -one.requests_per_s,
    "received/s": lambda one: -(one.received_bytes_per_s or 0.0),
    "taken/s": lambda one: -(one.taken_bytes_per_s or 0.0),
    "unread": lambda one: -(one.client["unread_bytes"] or 0),
    "watches": lambda one: -(one.client["watches"] or 0),
    "connected": lambda one: -(one.client["connected_s"] or 0.0),
}
OPERATION_ORDERS: Mapping[str, Callable[[OperationRates], float]] = {
    "rate": lambda one: -one.per_s,
    "p99": lambda one: -one.latency.p99_s,
    "errors": lambda one: -one.errors_per_s,
}

_KEY = re.compile(r"\x1b\[[0-9;]*[A-Za-z~]|\x1bO.|.", re.DOTALL)
_UP, _DOWN, _PAGE_UP, _PAGE_DOWN = ("\x1b[A", "\x1bOA", "k"), ("\x1b[B", "\x1bOB", "j"), ("\x1b[5~",), ("\x1b[6~",)
_PAGE_ROWS = 10


def keys_in(typed: str) -> Sequence[str]:
    """Return the keys that were pressed, an arrow's sequence of characters as one."""
    return _KEY.findall(typed)


@dataclass
class View:
    """What is shown of the figures, and in which order.

    client_order, operation_order  names of CLIENT_ORDERS and OPERATION_ORDERS
    pattern                        only operations, clients and prefixes with this in their name or address
    typing                         whether keys go to the pattern
    paused                         whether the picture stays; the server is asked on
    help                           whether the keys are explained instead
    sampling                       whether a sample of the requests is taken, which costs the server a little
    interval_s                     how often the server is asked
    skipped                        how many clients are scrolled over
    done                           whether to end
    """

    client_order: str = "requests/s"
    operation_order: str = "rate"
    pattern: str = ""
    typing: bool = False
    paused: bool = False
    help: bool = False
    sampling: bool = False
    interval_s: float = 1.0
    skipped: int = 0
    done: bool = False

    def press(self, key: str) -> None:
        """Do what a key is for; others do nothing."""
        if self.typing:
            self._type(key)
        elif key in KEYS:
            KEYS[key].press(self)
        elif self.help or key == "\x1b":
            self.help, self.pattern = False, "" if not self.help else self.pattern

    def _type(self, key: str) -> None:
        if key in ("\r", "\n"):
            self.typing = False
        elif key == "\x1b":
            self.typing, self.pattern = False, ""
        elif key in ("\x7f", "\b"):
            self.pattern = self.pattern[:-1]
        elif key == "\x15":  # Ctrl-U
            self.pattern = ""
        elif len(key) == 1 and key.isprintable():
            self.pattern = (self.pattern + key)[:FILTER_CHARS_MAX]
        self.skipped = 0

    def clients(self, rates: Rates) -> Sequence[ClientRates]:
        """Return the clients that pass the filter, in order; those scrolled over are among them."""
        order = CLIENT_ORDERS[self.client_order]
        passed = (one for one in rates.clients if self.passes(one.client["name"], one.client["address"] or ""))
        return sorted(passed, key=lambda one: (order(one), one.client["name"]))

    def operations(self, rates: Rates) -> Sequence[tuple[str, OperationRates]]:
        """Return the operations that pass the filter, in order."""
        order = OPERATION_ORDERS[self.operation_order]
        passed = ((name, of) for name, of in rates.operations.items() if self.passes(name))
        return sorted(passed, key=lambda pair: (order(pair[1]), -pair[1].per_s, pair[0]))

    def passes(self, *texts: str) -> bool:
        """Say whether the filter lets something of these names through."""
        return not self.pattern or any(self.pattern.lower() in text.lower() for text in texts)

    def scroll(self, rows: int) -> None:
        """Move by so many clients."""
        self.skipped = max(0, self.skipped + rows)


@dataclass(frozen=True)
class Key:
    """What a key is for, in a line of the help, and what it does."""

    shown: str
    help: str
    press: Callable[[View], None]


def _next(orders: Iterable[str], now: str) -> str:
    names = list(orders)
    return names[(names.index(now) + 1) % len(names)]


def _order_clients(view: View) -> None:
    view.client_order, view.skipped = _next(CLIENT_ORDERS, view.client_order), 0


def _order_operations(view: View) -> None:
    view.operation_order = _next(OPERATION_ORDERS, view.operation_order)


def _filter(view: View) -> None:
    view.typing, view.help = True, False


def _pause(view: View) -> None:
    view.paused = not view.paused


def _sample(view: View) -> None:
    view.sampling = not view.sampling


def _help(view: View) -> None:
    view.help = not view.help


def _quit(view: View) -> None:
    view.done = True


def _slower(view: View) -> None:
    view.interval_s = min((each for each in INTERVALS_S if each > view.interval_s), default=view.interval_s)


def _quicker(view: View) -> None:
    view.interval_s = max((each for each in INTERVALS_S if each < view.interval_s), default=view.interval_s)


def _by(rows: int) -> Callable[[View], None]:
    return lambda view: view.scroll(rows)


_TABLE: Sequence[tuple[Sequence[str], Key]] = (
    (("s",), Key("s", "sort the clients by the next column: " + ", ".join(CLIENT_ORDERS), _order_clients)),
    (("o",), Key("o", "sort the operations by: " + ", ".join(OPERATION_ORDERS), _order_operations)),
    (("/", "f"), Key("/", "show only names and addresses with a text; Enter keeps it, Esc ends it", _filter)),
    (("p", " "), Key("p", "pause the picture, and go on", _pause)),
    (("m",), Key("m", "take a sample of the requests: hottest prefixes; costs the server a little", _sample)),
    (("+",), Key("+", "ask less often, up to every 10 s", _slower)),
    (("-",), Key("-", "ask more often, up to four times a second", _quicker)),
    (_UP, Key("up", "scroll the clients up", _by(-1))),
    (_DOWN, Key("down", "scroll the clients down", _by(1))),
    (_PAGE_UP, Key("PgUp", "scroll up by ten", _by(-_PAGE_ROWS))),
    (_PAGE_DOWN, Key("PgDn", "scroll down by ten", _by(_PAGE_ROWS))),
    (("h", "?"), Key("h", "these lines, and back", _help)),
    (("q", "\x04"), Key("q", "quit, as does Ctrl-C", _quit)),
)

KEYS: Mapping[str, Key] = {character: key for characters, key in _TABLE for character in characters}
"""What each key is for, by the characters it sends."""

HELP: Sequence[Key] = tuple(key for _, key in _TABLE)
"""All keys, each once."""
