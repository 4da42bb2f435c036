"""The section on what a program that asks once takes, over either kind of socket."""

from __future__ import annotations

from benchmarks.report.names import title_of
from benchmarks.report.text import decimal, paragraph, table
from benchmarks.results import OVER, PYZMQ, Results

_OVER_PYZMQ = f"kvzmq{OVER}{PYZMQ}"
_FIELDS = ("cpu_s", "seconds")


def write(results: Results) -> str:
    """Compare programs from the start of Python to its end."""
    rows = [
        [
            "Python alone" if program == "nothing" else title_of(contender),
            *(
                decimal(1e3 * results.median("startup", field, contender=contender, program=program), 0)
                for field in _FIELDS
            ),
        ]
        for program, contender in (("first answer", "kvzmq"), ("first answer", _OVER_PYZMQ), ("nothing", "python"))
        if results.rows("startup", contender=contender, program=program)
    ]
    if not rows:
        return ""
    ours, theirs = ({"contender": name, "program": "first answer"} for name in ("kvzmq", _OVER_PYZMQ))
    ratio = results.ratio("startup", "cpu_s", ours, theirs)
    return "\n\n".join(
        [
            paragraph(
                "A program that imports kvzmq, connects, looks one row up and ends: processor time, user and system,",
                "and wall-clock time of the whole process, milliseconds.",
            ),
            table(("client", "processor ms", "wall ms"), rows),
            paragraph(
                f"Over its own socket it takes {ratio.median:.2f} of the processor time that it takes over pyzmq"
                f" ({ratio.least:.2f} to {ratio.greatest:.2f})."
                if ratio.known
                else ""
            ),
        ]
    ).rstrip()
