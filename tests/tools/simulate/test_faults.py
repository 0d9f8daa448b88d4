"""Faults as text."""

from __future__ import annotations

import pytest

from trimtab_client import InvalidArgumentError
from trimtab_tools.simulate.faults import GRAMMAR, Action, Fault, parse_fault


@pytest.mark.parametrize(
    ("words", "fault"),
    [
        ("kill-server@3s", (Action.KILL_SERVER, None, 3.0, "", 0.0)),
        ("kill-server@committed+2", (Action.KILL_SERVER, None, None, "committed", 2.0)),
        ("stop-server@0.5s+2s", (Action.STOP_SERVER, None, 0.5, "", 2.0)),
        ("kill-rank:2@5s", (Action.KILL_RANK, 2, 5.0, "", 0.0)),
        ("kill-rank:0@flipping", (Action.KILL_RANK, 0, None, "flipping", 0.0)),
        ("stop-rank:3@armed+1.5s", (Action.STOP_RANK, 3, None, "armed", 1.5)),
        ("refuse:1@2s", (Action.REFUSE, 1, 2.0, "", 0.0)),
        ("slow:1@2s+0.2", (Action.SLOW, 1, 2.0, "", 0.2)),
    ],
)
def test_a_fault_is_parsed(words, fault):
    assert parse_fault(words, 4) == Fault(words, *fault)


def test_a_fault_may_happen_when_a_window_of_the_trace_begins():
    words = "kill-rank:1@w20"

    fault = Fault(words, Action.KILL_RANK, 1, None, "", 0.0, window=20)
    assert parse_fault(words, 4, windows=21) == fault
    with pytest.raises(
        InvalidArgumentError, match=r"'kill-rank:1@w20' does not name a window in \[0, 19\]"
    ):
        parse_fault(words, 4, windows=20)
    with pytest.raises(InvalidArgumentError, match="names a window, but there is no trace"):
        parse_fault(words, 4)


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        ("", "is not ACTION"),
        ("kill-rank:1", "is not ACTION"),
        ("kill-rank:1@3", "is not ACTION"),
        ("explode:1@3s", "does not begin with one of kill-server, "),
        ("kill-rank@3s", r"does not name a rank in \[0, 3\]"),
        ("kill-rank:4@3s", r"does not name a rank in \[0, 3\]"),
        ("kill-server:1@3s", "names a rank, but is about the server"),
        ("kill-rank:1@committed", "is neither at a time"),
        ("kill-server@armed", "is neither at a time"),
        ("refuse:1@armed", "needs a time"),
        ("stop-rank:1@3s", "does not say how long"),
        ("kill-rank:1@3s+2", r"takes no \+SECONDS"),
        ("kill-server@1.2.3s", "'1.2.3' is not a number of seconds"),
    ],
)
def test_an_error_quotes_the_text(words, complaint):
    with pytest.raises(InvalidArgumentError, match=complaint) as refused:
        parse_fault(words, 4)

    assert repr(words) in str(refused.value)


@pytest.mark.parametrize("action", [each.value for each in Action])
def test_the_help_describes_every_action(action):
    assert f"\n  {action}" in GRAMMAR
