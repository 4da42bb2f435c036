"""The list of planted faults, by the part of the package that they break; tests/mutants.py plants them.

A fault stands with others of its room. Each module is a list of its own: whoever adds a fault touches no other.
"""

from __future__ import annotations

from planted_faults import (
    cli,
    client,
    client_core,
    observing,
    others,
    protocol,
    server,
    server_transport,
    store,
    store_etcd,
    store_file,
    store_offline,
)
from planted_faults.mutant import Mutant

MUTANTS: list[Mutant] = [
    mutant
    for room in (
        protocol,
        store,
        store_file,
        store_offline,
        store_etcd,
        server,
        server_transport,
        client_core,
        client,
        observing,
        cli,
        others,
    )
    for mutant in room.MUTANTS
]
