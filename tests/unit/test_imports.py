"""The import graph goes one way, as docs/design.md draws it."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import kvzmq

PACKAGE = Path(kvzmq.__file__).parent
MODULES = {
    ".".join(("kvzmq", *path.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(".__init__"): path
    for path in PACKAGE.rglob("*.py")
}


def imports_of(path: Path) -> set[str]:
    """Return what a module imports: when it is loaded, in functions, and under TYPE_CHECKING."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.module is not None, f"{path} has a relative import"
            below = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name for name in below if name in MODULES} or {node.module}
            if below - set(MODULES):
                found.add(node.module)
    return found


GRAPH = {name: imports_of(path) for name, path in MODULES.items()}


def below(name: str, *packages: str) -> bool:
    return any(name == package or name.startswith(package + ".") for package in packages)


def allowed(name: str, imported: str, *packages: str) -> bool:
    return not below(imported, "kvzmq") or imported == "kvzmq" or below(imported, *packages)


RULES = {
    "kvzmq.errors": (),
    "kvzmq.units": (),
    "kvzmq.curve": ("kvzmq.errors",),
    "kvzmq.protocol": ("kvzmq.errors", "kvzmq.protocol"),
    "kvzmq.protocol.declaration": (),
    "kvzmq.protocol.limits": (),
    "kvzmq.protocol.operations": (
        "kvzmq.errors",
        "kvzmq.protocol.declaration",
        "kvzmq.protocol.limits",
        "kvzmq.protocol.operations",
    ),
    "kvzmq.protocol.messages": (
        "kvzmq.protocol.declaration",
        "kvzmq.protocol.limits",
        "kvzmq.protocol.operations",
    ),
    "kvzmq.protocol.validation": ("kvzmq.errors", "kvzmq.protocol.declaration", "kvzmq.protocol.operations"),
    "kvzmq.protocol.encoding": ("kvzmq.protocol.declaration",),
    "kvzmq.protocol.msgpack": (
        "kvzmq.errors",
        "kvzmq.protocol.declaration",
        "kvzmq.protocol.encoding",
        "kvzmq.protocol.limits",
        "kvzmq.protocol.operations",
        "kvzmq.protocol.messages",
        "kvzmq.protocol.validation",
    ),
    "kvzmq.store": ("kvzmq.errors", "kvzmq.units", "kvzmq.protocol", "kvzmq.store"),
    "kvzmq.store.log": (),
    "kvzmq.store.observer": (),
    "kvzmq.store.file.files": ("kvzmq.errors",),
    "kvzmq.store.file.frames": ("kvzmq.errors", "kvzmq.store.file.files", "kvzmq.store.log"),
    "kvzmq.store.file.file_log": ("kvzmq.errors", "kvzmq.store"),
    "kvzmq.store.file.checkpoint": (
        "kvzmq.errors",
        "kvzmq.store.file.files",
        "kvzmq.store.file.frames",
        "kvzmq.store.log",
    ),
    "kvzmq.store.etcd": ("kvzmq.errors", "kvzmq.units", "kvzmq.store.log", "kvzmq.store.etcd"),
    "kvzmq.store.etcd.messages_pb2": (),
    "kvzmq.store.etcd.url": (),
    "kvzmq.store.etcd.checkpoints": ("kvzmq.errors", "kvzmq.store.file.files"),
    "kvzmq.store.etcd.local_copy": ("kvzmq.errors", "kvzmq.store"),
    "kvzmq.store.etcd.kept": ("kvzmq.errors", "kvzmq.store"),
    "kvzmq.store.etcd.upkeep": ("kvzmq.errors", "kvzmq.units", "kvzmq.store"),
    "kvzmq.store.etcd.upkeep_process": ("kvzmq.errors", "kvzmq.units", "kvzmq.store"),
    "kvzmq.server": (
        "kvzmq.errors",
        "kvzmq.curve",
        "kvzmq.units",
        "kvzmq.protocol",
        "kvzmq.store",
        "kvzmq.catalog",
        "kvzmq.server",
    ),
    "kvzmq.server.timers": (),
    "kvzmq.server.transport": ("kvzmq.errors", "kvzmq.curve", "kvzmq.protocol", "kvzmq.server.transport"),
    "kvzmq.catalog": ("kvzmq.errors", "kvzmq.catalog"),
    "kvzmq.observing": (
        "kvzmq.errors",
        "kvzmq.units",
        "kvzmq.bench",
        "kvzmq.store",
        "kvzmq.server.histogram",
        "kvzmq.observing",
    ),
    "kvzmq.bench": ("kvzmq.errors", "kvzmq.protocol", "kvzmq.bench"),
    "kvzmq.client": (),
    "kvzmq.client.core": ("kvzmq.errors", "kvzmq.curve", "kvzmq.protocol", "kvzmq.catalog", "kvzmq.client.core"),
    "kvzmq.client.sync": ("kvzmq.errors", "kvzmq.curve", "kvzmq.client.core", "kvzmq.client.sync"),
    "kvzmq.client.asyncio": ("kvzmq.errors", "kvzmq.curve", "kvzmq.client.core", "kvzmq.client.asyncio"),
    "kvzmq.tracing": ("kvzmq.protocol", "kvzmq.server", "kvzmq.tracing"),
    "kvzmq.dashboard": (
        "kvzmq.errors",
        "kvzmq.curve",
        "kvzmq.protocol",
        "kvzmq.store.offline",
        "kvzmq.catalog",
        "kvzmq.client",
        "kvzmq.tracing",
        "kvzmq.observing",
        "kvzmq.units",
        "kvzmq.dashboard",
    ),
    "kvzmq.cli": ("kvzmq",),
    "kvzmq.__main__": ("kvzmq.cli",),
}
"""What each part may import of the package; the longest name that fits a module counts. Only cli imports cli."""

EXPORTED = ("kvzmq.errors", "kvzmq.client")
"""What the package's top level makes its own, when it is first used."""


@pytest.mark.parametrize("name", sorted(MODULES))
def test_a_module_imports_only_what_is_below_it(name: str) -> None:
    """In functions and for types, too. Seen red with a table that imports the server in a function."""
    rules = [rule for rule in RULES if below(name, rule)]
    assert rules or name == "kvzmq", f"{name} is in no room that has a rule"
    packages = RULES[max(rules, key=len)] if rules else EXPORTED
    wrong = {imported for imported in GRAPH[name] if not allowed(name, imported, *packages)}
    assert not wrong, f"{name} imports {sorted(wrong)}"


NAMED_FOR_TYPES = {("kvzmq.client.sync.views", "kvzmq.client.sync.mapping")}
"""Imports that count for no cycle: a client makes its views, and a view's signature names its client."""


def test_there_are_no_cycles() -> None:
    """Of neither kind. Seen red with a command that imports in a function what imports it."""
    done: set[str] = set()

    def visit(name: str, path: tuple[str, ...]) -> None:
        assert name not in path, " -> ".join((*path[path.index(name) :], name))
        if name not in done:
            for imported in GRAPH[name] & set(MODULES) - {"kvzmq"}:
                if (name, imported) not in NAMED_FOR_TYPES:
                    visit(imported, (*path, name))
            done.add(name)

    for name in MODULES:
        visit(name, ())


HOMES = {
    "zmq": ("kvzmq.server", "kvzmq.client", "kvzmq.bench", "kvzmq.cli"),
    "click": ("kvzmq.cli",),
    "rich": ("kvzmq.cli",),
    "prometheus_client": ("kvzmq.server.exposition",),
    "grpc": ("kvzmq.store.etcd",),
    "google.protobuf": ("kvzmq.store.etcd",),
    "starlette": ("kvzmq.dashboard",),
    "uvicorn": ("kvzmq.dashboard.run",),
}


@pytest.mark.parametrize("library", sorted(HOMES))
def test_a_library_stays_where_it_belongs(library: str) -> None:
    users = {name for name in MODULES if any(below(found, library) for found in GRAPH[name])}
    assert users, f"nothing imports {library}"
    assert {user for user in users if not below(user, *HOMES[library])} == set()


def test_one_socket_of_the_client_knows_zmq_and_nothing_else_does() -> None:
    """The others see what kvzmq.client.core.socket says of it. Seen red with zmq imported under TYPE_CHECKING."""
    client = {name: path for name, path in MODULES.items() if below(name, "kvzmq.client")}
    users = {name for name, path in client.items() if any(below(f, "zmq") for f in imports_of(path))}
    assert users == {"kvzmq.client.core.pyzmq_socket"}


LOADS = """
import importlib, sys
for name in sys.argv[1:]:
    importlib.import_module(name)
    loaded = {"zmq", "click", "rich"} & sys.modules.keys()
    if loaded:
        sys.exit(f"{name} loads {sorted(loaded)}")
"""


LOADS_TO_LOOK_UP = """
import sys
import kvzmq
kvzmq.connect("tcp://127.0.0.1:1")
loaded = {"zmq", "asyncio", "kvzmq.client.core.push_state", "kvzmq.protocol.validation"} & sys.modules.keys()
if loaded:
    sys.exit(f"a client loads {sorted(loaded)} before it needs them")
"""


def test_a_client_loads_what_it_needs_for_its_first_answer_and_no_more() -> None:
    """Each costs a twentieth or more of the time until then. Seen red with the watch imported at the top."""
    loading = subprocess.run(
        [sys.executable, "-c", LOADS_TO_LOOK_UP], capture_output=True, text=True, timeout=60, check=False
    )
    assert loading.returncode == 0, loading.stderr


def test_protocol_and_store_never_load_zmq() -> None:
    """Whatever way it takes, in a fresh process; seen red with one that imports `kvzmq.Client`."""
    names = [name for name in sorted(MODULES) if below(name, "kvzmq.errors", "kvzmq.protocol", "kvzmq.store")]
    assert len(names) > 20
    loading = subprocess.run(
        [sys.executable, "-c", LOADS, *names], capture_output=True, text=True, timeout=60, check=False
    )
    assert loading.returncode == 0, loading.stderr


CONNECTS = """
import sys
import kvzmq
kvzmq.connect("tcp://127.0.0.1:5570", transport="plain").close()
others = {"zmq", "logging", "kvzmq.catalog", "kvzmq.protocol.operations", "kvzmq.protocol.msgpack"}
print(*others & sys.modules.keys())
"""


def test_a_client_that_has_asked_nothing_has_not_loaded_what_servers_and_catalogs_need() -> None:
    """A fifth of the time to a program's first answer. Seen red with the catalog imported by `endpoints`."""
    connecting = subprocess.run(
        [sys.executable, "-c", CONNECTS], capture_output=True, text=True, timeout=60, check=True
    )
    assert connecting.stdout.split() == []


def test_the_log_and_the_files_know_bytes_not_messages() -> None:
    names = ("log", "file.files", "file.frames", "file.file_log", "file.checkpoint")
    for name in (f"kvzmq.store.{name}" for name in names):
        assert not any(below(found, "kvzmq.protocol") for found in GRAPH[name]), name
