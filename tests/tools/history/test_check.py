"""The checker of histories accepts correct histories, and counts what is in them."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from itertools import zip_longest
from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

import trimtab_tools.history
from tests.tools.history.runs import Line, Run, clean, find, index_of, judge, with_terms
from trimtab_tools.history.check import RULES

PROTOCOL = (Path(__file__).parents[3] / "PROTOCOL.md").read_text()


def test_a_clean_history_has_no_violations_and_is_counted() -> None:
    lines = clean()

    report = judge(lines, complete=True)

    assert report.violations == ()
    assert (report.events, report.deployments, report.epochs) == (len(lines), 1, 2)
    assert (report.offered, report.committed, report.aborted, report.flips) == (6, 3, 2, 6)
    assert report.unplaced == 0
    assert report.other_kinds == {}


def test_deployments_are_checked_separately() -> None:
    """Two deployments have the same versions, with other digests, steps and counts."""
    other, unnamed = Run("e", seed=1), Run(seed=2)
    for run in (other, unnamed):
        run.opened()
        run.switched()
        run.overtaken(committed=True)
        run.reported("w0", 1)
    turns = zip_longest(clean(), other.lines, unnamed.lines)

    report = judge([line for turn in turns for line in turn if line is not None], complete=True)

    assert report.violations == ()
    assert (report.deployments, report.epochs) == (3, 6)


def test_a_deleted_deployment_begins_anew() -> None:
    def lines() -> list[Line]:
        run = Run("d", seed=1)
        run.opened()
        run.switched()
        return run.lines

    deleted = {"kind": "deleted", "deployment": "d"}

    assert judge([*lines(), *lines()]).violations
    report = judge([*lines(), deleted, *lines()], complete=True)

    assert report.violations == ()
    assert (report.epochs, report.committed) == (2, 2)


STEPS: dict[str, Callable[[Run], None]] = {
    "switch": Run.switched,
    "refuse": Run.refused,
    "restart": Run.restarted,
    "start": Run.started,
    "all die": Run.opened,
    "one dies": lambda run: run.opened(dead=["w0"]),
    "regroup": lambda run: run.opened(dead=[]),
    "overtake": lambda run: run.overtaken(committed=False),
    "overtake committed": lambda run: run.overtaken(committed=True),
    "report": lambda run: run.reported("w0", 3, gap=1),
    "report nothing": lambda run: run.reported("w1", 0),
    "restore": lambda run: run.restored("w0", lost=5),
}
SCRIPTS = st.lists(st.sampled_from(sorted(STEPS)), max_size=12)


@given(scripts=st.tuples(SCRIPTS, SCRIPTS), rng=st.randoms(use_true_random=False), data=st.data())
def test_every_prefix_of_a_clean_history_is_clean(
    scripts: tuple[list[str], list[str]], rng: Random, data: st.DataObject
) -> None:
    runs = [Run("d", seed=0), Run("e", seed=1)]
    for run, script in zip(runs, scripts, strict=True):
        run.opened()
        for step in script:
            STEPS[step](run)
    turns = [n for n, run in enumerate(runs) for _ in run.lines]
    rng.shuffle(turns)
    rest = [iter(run.lines) for run in runs]
    lines = with_terms([next(rest[turn]) for turn in turns])

    whole = judge(lines, complete=True)
    prefix = judge(lines[: data.draw(st.integers(0, len(lines)))])

    assert whole.violations == prefix.violations == ()
    kinds = [line["kind"] for line in lines]
    assert whole.epochs == kinds.count("epoch") >= 2
    assert whole.offered == kinds.count("offered")
    assert whole.committed == kinds.count("committed")
    assert whole.flips == kinds.count("flipped")


def test_a_history_of_the_server_alone_needs_no_lines_of_workers() -> None:
    lines = [line for line in clean() if line["kind"] not in ("in_force", "flipped")]

    report = judge(lines, complete=True)

    assert report.violations == ()
    assert (report.flips, report.committed) == (0, 3)


def test_a_deployment_without_an_epoch_is_at_rest() -> None:
    report = judge([find(clean(), "report")], complete=True)

    assert report.violations == ()
    assert (report.deployments, report.epochs) == (1, 0)


def test_versions_without_a_placement_are_counted() -> None:
    lines = clean()
    for name in ("offered 1.1", "offered 1.4"):
        del find(lines, name)["placement"]

    report = judge(lines)

    assert report.violations == ()
    assert report.unplaced == 2


def test_a_history_may_begin_with_a_later_epoch() -> None:
    lines = clean()

    report = judge(lines[index_of(lines, "epoch 2") :], complete=True)

    assert report.violations == ()
    assert report.offered == 1


DURABLE = ["epoch 2", "offered 1.3", "committed 1.4", "aborted 1.3", "applied 1.4"]


def again(lines: list[Line], name: str, *, lost: bool) -> Line:
    """The server dies after a save, before or after it has written the event."""
    n = index_of(lines, name)
    noted = lines[n] | {"again": True}
    lines[n : n + 1] = [*lines[n : n + (not lost)], {"kind": "started"}, noted]
    with_terms(lines)
    return noted


@pytest.mark.parametrize("name", DURABLE)
@pytest.mark.parametrize("lost", [False, True])
def test_an_event_that_a_restarted_server_repeats_counts_once(name: str, lost: bool) -> None:
    lines = clean()
    expected = judge(lines, complete=True)

    again(lines, name, lost=lost)
    report = judge(lines, complete=True)

    assert report == replace(expected, events=len(lines))


@pytest.mark.parametrize("name", [name for name in DURABLE if "aborted" not in name])
@pytest.mark.parametrize("lost", [False, True])
def test_a_repeated_event_has_the_same_digest(name: str, lost: bool) -> None:
    lines = clean()
    noted = again(lines, name, lost=lost)
    noted["digest"] = "0" * 64

    told = {v.invariant: v.line for v in reversed(judge(lines).violations)}

    assert "I2" in told
    if not lost:
        assert told.keys() == {"I2"}
        assert lines[told["I2"] - 1] is noted


def test_lines_of_other_kinds_are_counted_and_not_judged() -> None:
    ignored = {"kind": "ignored", "version": "of any form", "answer": "Prepared"}

    report = judge([*clean(), ignored, ignored, {"kind": "comitted"}])

    assert report.violations == ()
    assert report.other_kinds == {"ignored": 2, "comitted": 1}
    assert report.deployments == 1


@pytest.mark.parametrize("text", [trimtab_tools.history.__doc__, PROTOCOL])
def test_the_documented_rules_are_those_that_are_checked(text: str) -> None:
    codes = r"I\d|liveness" if text is PROTOCOL else r"I\d|P\d|liveness"
    documented = set(re.findall(rf"^\| ({codes}) \|", text, re.MULTILINE))
    judged = {code for code in (*RULES, "P1", "liveness") if re.fullmatch(codes, code)}

    assert documented == judged
