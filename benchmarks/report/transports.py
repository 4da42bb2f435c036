"""The section that compares the bridge with ROUTER."""

from __future__ import annotations

import math

from benchmarks.report.names import BRIDGE, STAGES, transports_of, zeromq_of
from benchmarks.report.testperf import counts_of
from benchmarks.report.text import decimal, paragraph, table, times
from benchmarks.results import OVER, PYZMQ, Results

_OVER_PYZMQ = f"kvzmq{OVER}{PYZMQ}"


def write(results: Results) -> str:
    """Compare the bridge with ROUTER."""
    parts = []
    way = zeromq_of(results)
    counts = [count for count in counts_of(results, BRIDGE) if count in counts_of(results, way)]
    if counts:
        rows = []
        for count in counts:
            ratios = []
            for stage in STAGES:
                wanted = {"contender": "kvzmq", "operation": stage, "client": "sum", "clients": count}
                ours, theirs = ({**wanted, "transport": each} for each in (BRIDGE, way))
                ratios.append(decimal(results.ratio("testperf", "ops_per_s", ours, theirs).median))
            rows.append([str(count), *ratios])
        parts += [
            f"TestPerf, sum over the bridge by sum over {transports_of(results)[way]} (above 1: the bridge is ahead):",
            table(("clients", *STAGES), rows),
        ]
    if results.has("clients"):
        parts += [
            paragraph(
                "Processor time of one operation, microseconds, with one blocking client and with eight.",
                "`ROUTER` is asked by kvzmq's client as it is, `pyzmq` is the same by a DEALER of libzmq's.",
            ),
            _cpu_table(results),
        ]
        parts.append(paragraph(*_on_transports(results)))
    return "\n\n".join(parts)


def _cpu(results: Results, contender: str, operation: str, clients: int, side: str) -> float:
    return results.median("clients", f"{side}_cpu_us_per_op", contender=contender, operation=operation, clients=clients)


def _cpu_table(results: Results) -> str:
    rows = []
    for operation in ("lookup", "insert", "size"):
        for clients in (1, 8):
            cells = [
                decimal(_cpu(results, contender, operation, clients, side), 1)
                for contender in ("kvzmq-bridge", "kvzmq", _OVER_PYZMQ)
                for side in ("server", "client")
            ]
            rows.append([operation, str(clients), *cells])
    header = ("operation", "clients", "bridge: server", "client", "ROUTER: server", "client", "pyzmq: server", "client")
    return table(header, rows)


def _on_transports(results: Results) -> list[str]:
    bridge, router = (_cpu(results, contender, "lookup", 1, "server") for contender in ("kvzmq-bridge", "kvzmq"))
    bridge_client, router_client = (
        _cpu(results, contender, "lookup", 1, "client") for contender in ("kvzmq-bridge", "kvzmq")
    )
    if any(math.isnan(figure) for figure in (bridge, router, bridge_client, router_client)):
        return []
    sentences = [
        f"For one lookup the server spends {bridge:.0f} us at the bridge and {router:.0f} us at ROUTER, the"
        f" client {bridge_client:.0f} us and {router_client:.0f} us."
    ]
    if router > 1.1 * bridge:
        sentences.append(
            "ROUTER's time includes libzmq's I/O thread in the server: a message crosses from it to the loop and"
            " back, with a wake-up each way,"
            " while a line of the bridge is read and written by the loop itself."
        )
    elif router < 0.9 * bridge:
        sentences.append("Here the bridge costs more, JSON included.")
    crowd_bridge, crowd_router = (
        [_cpu(results, contender, "lookup", 8, side) for side in ("server", "client")]
        for contender in ("kvzmq-bridge", "kvzmq")
    )
    if sum(crowd_router) > 1.2 * sum(crowd_bridge):
        sentences.append(
            f"With eight clients, when the requests of a step share its poll, it is {crowd_bridge[0]:.0f} and"
            f" {crowd_router[0]:.0f} us in the server,"
            f" {crowd_bridge[1]:.0f} and {crowd_router[1]:.0f} us in the client:"
            f" {times(sum(crowd_router) / sum(crowd_bridge))} as much over ROUTER together."
        )
    sentences.append(
        "What ZeroMQ gives in return is not in this table: many operations in one message, bytes as values, watches."
    )
    return sentences
