"""Counts by expert and by slot, against the obvious way to add them up."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimtab_client import InvalidArgumentError, Placement
from trimtab_client.worker.counters import Counters

FIRST = Placement.untouched(2, 3, 4, 2)
ONES = np.ones((2, 3), np.int32)


def counters(placement: Placement = FIRST, gpus: tuple[int, ...] = (0, 1)) -> Counters:
    return Counters(placement, gpus)


@st.composite
def histories(draw: st.DrawFn) -> tuple[Any, ...]:
    """A topology, a worker's GPUs, and what happens: counts of either kind, flips, reports."""
    gpus, slots = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    layers, experts = draw(st.integers(1, 3)), draw(st.integers(1, gpus * slots))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))

    def placement() -> Placement:
        spare = rng.integers(0, experts, gpus * slots - experts)
        row = np.concatenate([np.arange(experts), spare])
        return Placement.of(np.stack([rng.permutation(row) for _ in range(layers)]), experts, gpus)

    def some_gpus() -> tuple[int, ...]:
        count = int(rng.integers(1, gpus + 1))
        return tuple(sorted(rng.choice(gpus, count, replace=False).tolist()))

    kinds = st.sampled_from(["experts", "slots", "flip", "group", "snapshot", "acknowledged"])
    return placement, some_gpus, rng, draw(st.lists(kinds, max_size=30))


@given(histories())
def test_counts_equal_those_added_one_by_one(history: tuple[Any, ...]) -> None:
    placement_of, some_gpus, rng, kinds = history
    placement, gpus = placement_of(), some_gpus()
    table = Counters(placement, gpus)
    expected = np.zeros(placement.logcnt.shape, np.int64)
    slots = placement.phy2log.shape[1] // placement.num_gpus
    seq, acknowledged = 1, False
    for step, kind in enumerate([*kinds, "snapshot"]):
        own = [gpu * slots + i for gpu in gpus for i in range(slots)]
        if kind == "experts":
            counts = rng.integers(0, 2**40, expected.shape)
            table.record(counts, step, step)
            expected += counts
        elif kind == "slots":
            counts = rng.integers(0, 2**40, (len(expected), len(own)))
            table.record(counts, step, step, per_slot=True)
            for layer in range(len(expected)):
                for column, slot in enumerate(own):
                    expected[layer, placement.phy2log[layer, slot]] += counts[layer, column]
        elif kind == "flip":
            placement = placement_of()
            table.flipped(placement, gpus, step)
        elif kind == "group":
            placement, gpus = placement_of(), some_gpus()
            table.regrouped(placement, gpus)
        elif kind == "acknowledged":
            table.acknowledged(seq)
            acknowledged = True
        else:
            snapshot = table.snapshot()
            seq += acknowledged
            assert snapshot.seq == seq
            assert snapshot.counts_LE.tolist() == expected.tolist()


@pytest.mark.parametrize("dtype", [np.int8, np.uint16, np.int32, np.uint32, np.int64, np.uint64])
def test_counts_of_any_integer_type_are_added_exactly(dtype: Any) -> None:
    table = counters()
    table.record(np.full((2, 3), 2**53 + 1, np.int64), 0, 0)
    table.record(np.full((2, 3), 100, dtype), 0, 0)

    assert (table.snapshot().counts_LE == 2**53 + 101).all()


def test_counts_of_concurrent_threads_are_complete() -> None:
    """While others record by expert and by slot, snapshots are taken, and only rise."""
    table = counters()
    turns, threads = 2000, 4
    begin = threading.Barrier(threads + 1)

    def record(index: int) -> None:
        begin.wait()
        for _ in range(turns):
            if index % 2:
                table.record(ONES, 0, 0)
            else:
                table.record(np.ones((2, 4), int), 0, 0, per_slot=True)

    running = [threading.Thread(target=record, args=(index,)) for index in range(threads)]
    for thread in running:
        thread.start()
    begin.wait()
    table.acknowledged(1)
    last = table.snapshot()
    while any(thread.is_alive() for thread in running):
        snapshot = table.snapshot()
        assert (snapshot.counts_LE >= last.counts_LE).all()
        assert snapshot.seq == last.seq + 1
        last = snapshot
    assert table.snapshot().counts_LE.sum() == turns * threads / 2 * (6 + 8)


def test_a_snapshot_does_not_change() -> None:
    table = counters()
    before = table.snapshot()
    table.record(ONES, 0, 0)

    assert before.counts_LE.sum() == 0


def test_the_number_stays_1_until_one_has_been_acknowledged() -> None:
    """So 1 says that no server has counted any of it, and the first step is that of all."""
    table = counters()
    assert table.snapshot()[:3] == (1, 0, -1)
    table.record(ONES, 5, 7)
    table.record(ONES, 5, 7)
    assert table.snapshot()[:3] == (1, 5, 7)
    table.record(ONES, 8, 8)
    table.acknowledged(0)
    assert table.snapshot()[:3] == (1, 5, 8)


def test_a_report_covers_the_steps_since_the_previous_number() -> None:
    table = counters()
    table.record(ONES, 5, 7)
    table.snapshot()
    table.acknowledged(1)
    table.record(ONES, 8, 8)
    assert table.snapshot()[:3] == (2, 8, 8)
    assert table.snapshot()[:3] == (3, 9, 8)
    table.record(ONES, 20, 29)
    assert table.snapshot()[:3] == (4, 9, 29)


def test_steps_begin_with_the_first_one_counted_though_a_report_came_before() -> None:
    table = counters()
    table.snapshot()
    table.acknowledged(1)
    table.record(ONES, 5, 7)
    assert table.snapshot()[:3] == (2, 5, 7)


def test_the_steps_of_reports_rise_though_a_new_group_begins_anew() -> None:
    table = counters()
    table.acknowledged(1)
    table.record(ONES, 100, 109)
    table.regrouped(FIRST, (0, 1))
    assert table.snapshot()[1:3] == (100, 109)
    table.record(ONES, 0, 4)
    assert table.snapshot()[1:3] == (110, 114)
    table.record(ONES, 5, 9)
    assert table.snapshot()[1:3] == (115, 119)


@pytest.mark.parametrize(
    ("counts", "per_slot", "message"),
    [
        (np.ones((2, 4), int), False, r"counts: shape \(2, 4\) is not \[L, E\] = \(2, 3\)"),
        (np.ones((2, 3), int), True, r"counts: shape \(2, 3\) is not \[L, own slots\] = \(2, 4\)"),
        (np.ones(3, int), False, r"counts: shape \(3,\) has rank 1"),
        (np.ones((2, 3)), False, "counts: dtype float64 is not an integer type"),
        ([[0, 0, 0], [0, -5, 0]], False, r"counts\[1, 1\]: -5 is negative"),
        (np.full((2, 3), 2**63, np.uint64), False, "beyond int64"),
        ("counts", False, "counts: "),
    ],
    ids=["experts", "slots", "rank", "floats", "negative", "too large", "text"],
)
def test_invalid_counts_are_refused(counts: Any, per_slot: bool, message: str) -> None:
    table = counters()
    with pytest.raises(InvalidArgumentError, match=message):
        table.record(counts, 0, 0, per_slot=per_slot)
    assert table.snapshot()[1:3] == (0, -1)


@pytest.mark.parametrize(
    ("first", "last", "message"),
    [
        (9, 20, "first_step: 9 is before that of the last call, 10"),
        (10, 18, "last_step: 18 is before that of the last call, 19"),
        (30, 29, "last_step: 29 is before first_step, 30"),
        (-1, 29, "first_step: -1 is not in"),
        (1.5, 29, "first_step: 1.5 is not an integer"),
        (10, 2**63 - 1, "last_step: 9223372036854775807 is not in"),
    ],
    ids=str,
)
def test_steps_that_run_backwards_are_refused(first: Any, last: Any, message: str) -> None:
    table = counters()
    table.record(ONES, 10, 19)
    with pytest.raises(InvalidArgumentError, match=message):
        table.record(ONES, first, last)
    assert table.snapshot().counts_LE.sum() == 6


def test_the_steps_of_all_groups_together_have_an_end() -> None:
    table = counters()
    table.record(ONES, 0, 2**63 - 3)
    table.regrouped(FIRST, (0, 1))
    for _ in range(2):
        with pytest.raises(InvalidArgumentError, match="last_step: 1 is too far"):
            table.record(ONES, 0, 1)
        table.record(ONES, 0, 0)
    assert table.snapshot().last_step == 2**63 - 2
    assert table.snapshot().counts_LE.sum() == 18


def test_counts_by_slot_must_not_reach_back_over_a_flip() -> None:
    table = counters()
    table.flipped(FIRST, (0, 1), 10)
    table.record(ONES, 9, 9)
    with pytest.raises(InvalidArgumentError, match="first_step: 9 is before the flip at step 10"):
        table.record(np.ones((2, 4), int), 9, 10, per_slot=True)
    table.record(np.ones((2, 4), int), 10, 10, per_slot=True)


@pytest.mark.parametrize("per_slot", [False, True])
def test_counts_that_no_report_could_hold_are_refused_and_not_added(per_slot: bool) -> None:
    table = counters()
    table.record(ONES, 0, 0)
    shape = (2, 4) if per_slot else (2, 3)
    large = np.zeros(shape, np.int64)
    large[1, 2] = 2**61
    table.record(large, 1, 1, per_slot=per_slot)
    kept = table.snapshot().counts_LE
    for number in (2**61, 2**62, 2**63 - 1):
        large[1, 2] = number
        with pytest.raises(InvalidArgumentError, match=r"counts: .* make .*; a server takes less"):
            table.record(large, 2, 2, per_slot=per_slot)
    assert table.snapshot().counts_LE.tolist() == kept.tolist()
    assert table.snapshot().last_step == 1
    table.record(ONES, 2, 2)
    assert table.snapshot().counts_LE.sum() == kept.sum() + 6


def test_counts_are_accepted_if_only_their_bound_is_too_large() -> None:
    table = counters()
    uneven = np.zeros((2, 3), np.int64)
    uneven[0, 0] = 2**58
    for step in range(15):
        table.record(uneven, step, step)
    assert table.snapshot().counts_LE[0, 0] == 15 * 2**58


def discards(table: Counters) -> bool:
    """Whether the next report says that what it has is no traffic."""
    return table.snapshot().discard


def test_reports_discard_forgotten_load_until_one_is_acknowledged() -> None:
    table = counters()
    table.record(ONES, 0, 29)
    table.acknowledged(table.snapshot().seq)
    assert not discards(table)
    table.forget()
    first = table.snapshot()
    assert first.discard
    assert first.counts_LE.sum() == 6, "counts stay cumulative"
    table.acknowledged(first.seq - 1)
    assert discards(table), "an acknowledgement of an earlier report says nothing of it"
    table.acknowledged(first.seq)
    assert not discards(table)


def test_load_forgotten_before_the_first_report_is_discarded_by_it() -> None:
    table = counters()
    table.record(ONES, 0, 29)
    table.forget()
    assert table.snapshot()[:1] == (1,)
    table.acknowledged(1)
    assert not discards(table)


def test_an_ambiguous_acknowledgement_is_not_trusted() -> None:
    """Before the first one all reports have number 1: the server may have taken either."""
    table = counters()
    table.snapshot()
    table.forget()
    assert discards(table)
    table.acknowledged(1)
    sure = table.snapshot()
    assert (sure.seq, sure.discard) == (2, True)
    table.acknowledged(2)
    assert not discards(table)
