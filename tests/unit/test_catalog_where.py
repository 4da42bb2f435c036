"""The filters that a catalog evaluates."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvzmq.catalog.where import parse_where, satisfies

WHERE = [
    ("true", True),
    (" true ", True),
    ('type=="hashtable"', True),
    ('type == "hashtable" && project == "x y"', True),
    ('type=="hashtable" and project=="x y" and port==5000', True),
    ('true and type=="hashtable"', True),
    ("real==2", True),
    ('type=="other"', False),
    ('type=="hashtable" and project=="other"', False),
    ('absent=="x"', False),
    ('port=="5000"', False),
    ("project==5000", False),
    ("flag==1", False),
    ('quoted=="a\\"b\\\\"', True),
]


@pytest.mark.parametrize(("expression", "expected"), WHERE)
def test_simple_filters_mean_what_they_mean_to_the_original(expression: str, expected: bool) -> None:
    fields = {
        "type": "hashtable", "project": "x y", "port": 5000, "real": 2.0, "flag": True, "quoted": 'a"b\\',
    }  # fmt: skip
    wanted = parse_where(expression)
    assert wanted is not None
    assert satisfies(fields, wanted) is expected


@pytest.mark.parametrize(
    "expression",
    [
        "",
        "false",
        "type",
        'type=="a" or type=="b"',
        'type=="a" || type=="b"',
        'type!="a"',
        "port>1",
        "not true",
        '(type=="a")',
        'type=="a" and',
        'type=="a" type=="b"',
        'type=="a',
        'type=="\\u00e9"',
        "port==1.5",
        "port==1x",
        "port==007",
        'true=="true"',
        '"a"==type',
        "port==99999999999999999999",
        "truetype",
        'type=="a"andport==1 or true',
    ],
)
def test_all_other_filters_are_left_to_the_asker(expression: str) -> None:
    assert parse_where(expression) is None


@settings(deadline=None)
@given(st.text() | st.text(alphabet='type== "a&nd1()\\ '))
def test_no_text_breaks_the_filters(expression: str) -> None:
    wanted = parse_where(expression)
    if wanted is not None:
        satisfies({"type": "a"}, wanted)
