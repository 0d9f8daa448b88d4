"""Histories are read line by line, and a bad line is named."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from tests.tools.history.runs import Line, clean, find
from trimtab_client import InvalidArgumentError
from trimtab_tools.history import read_history


def test_other_keys_and_blank_lines_are_ignored_and_lines_may_be_bytes() -> None:
    text = b'\n  \n{"kind": "started", "term": 3, "deployment": "d", "pid": [7]}\n'

    (event,) = read_history(text.splitlines(keepends=True))

    assert event.line == 3
    assert vars(event)["term"] == 3


def test_events_are_read_as_they_come() -> None:
    events = read_history(iter(['{"kind": "started", "term": 1}', "no JSON"]))

    assert next(events).line == 1
    with pytest.raises(InvalidArgumentError, match="line 2: is not JSON"):
        next(events)


def bad(kind: str, **values: Any) -> str:
    """A line of this kind that is correct except for these values; ... removes a key."""
    line = find(clean(), kind)
    return json.dumps({key: v for key, v in {**line, **values}.items() if v is not ...})


def but(**values: Any) -> Line:
    """A placement that is correct except for these values."""
    placement: Line = find(clean(), "offered")["placement"]
    return placement | values


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ('{"kind": "started", "term": 1', "is not JSON: "),
        (b'{"kind": "\xff"}', "is not JSON: "),
        ("[" * 100_000, "is not JSON: "),
        ("[1, 2]", "[1, 2] is not a JSON object"),
        ("{}", "has no 'kind'"),
        ('{"kind": 3}', ": kind: 3 is not a string"),
        ('{"kind": "ignored", "deployment": 3}', ": deployment: 3 is not a string"),
        (bad("aborting", deployment=None), ": deployment: None is not a string"),
        (bad("aborting", again=1), ": again: 1 is neither true nor false"),
        (bad("started", term=...), "has no 'term'"),
        (bad("started", term="1"), ": term: '1' is not an integer"),
        (bad("started", term=True), ": term: True is not an integer"),
        (bad("started", term=-1), ": term: -1 is not in [0, inf]"),
        (bad("epoch", epoch=1.0), ": epoch: 1.0 is not an integer"),
        (bad("epoch", group=None), ": group: None is not a string"),
        (bad("epoch", members=[]), ": members: [] is not an object"),
        (bad("epoch", members={"w": 1}), ": members['w']: 1 is not an object"),
        (bad("epoch", members={"w": {}}), ": members['w']: has no 'incarnation'"),
        (bad("epoch", members={"w": {"incarnation": 1, "gpus": 0}}), "gpus: 0 is not a list"),
        (bad("epoch", members={"w": {"incarnation": 1, "gpus": [-1]}}), "gpus: -1 is not in"),
        (bad("aborting", version="1.1"), ": version: '1.1' is not [epoch, generation]"),
        (bad("aborting", version=[1]), ": version: [1] is not [epoch, generation]"),
        (bad("aborting", version=[1, -1]), ": version: -1 is not in [0, inf]"),
        (bad("aborting", reason=...), "has no 'reason'"),
        (bad("offered", base=...), "has no 'base'"),
        (bad("offered", digest="ab"), ": digest: 'ab' is not a SHA-256"),
        (bad("offered", digest="xy" * 32), "is not a SHA-256 of 64 hexadecimal digits"),
        (bad("offered", digest="ab " * 32), "is not a SHA-256 of 64 hexadecimal digits"),
        (bad("offered", placement=[1]), ": placement: [1] is not an object"),
        (bad("offered", placement={}), ": placement: has no 'experts'"),
        (bad("offered", placement=but(experts=0)), ": placement: experts: 0 is not in [1, "),
        (bad("offered", placement=but(experts=2**32)), "placement: experts: 4294967296 is not in"),
        (bad("offered", placement=but(gpus=3)), "gpus: 3 does not divide the number of slots (4)"),
        (bad("offered", placement=but(shape=[8])), "placement: shape: [8] is not [L, R]"),
        (bad("offered", placement=but(shape=[0, 4])), "placement: shape: [0, 4] is not [L, R]"),
        (bad("offered", placement=but(shape=[3, 4])), "phy2log: 32 bytes are not int32 [3, 4]"),
        (bad("offered", placement=but(phy2log="#")), ": placement: phy2log: is not base64: "),
        (bad("offered", placement=but(phy2log="ä")), ": placement: phy2log: is not base64: "),
        (bad("offered", placement=but(phy2log=[0])), "phy2log: [0] is not a string"),
        (bad("report", counts=None), ": counts: None is not an integer"),
        (bad("report", gap=...), "has no 'gap'"),
        (bad("flipped", worker=7), ": worker: 7 is not a string"),
        (bad("flipped", incarnation=...), "has no 'incarnation'"),
        (bad("flipped", step=[8]), ": step: [8] is not an integer"),
    ],
)
def test_a_bad_line_is_named(line: str | bytes, complaint: str) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        list(read_history([bad("started"), "", line]))

    assert str(caught.value).startswith("line 3: ")
    assert complaint in str(caught.value)
    (violation,) = caught.value.field_violations
    assert violation.field.startswith("line 3")


def test_a_long_value_is_cut_short() -> None:
    with pytest.raises(InvalidArgumentError, match=re.escape("...")) as caught:
        list(read_history([json.dumps(list(range(1000)))]))

    assert len(str(caught.value)) < 120
