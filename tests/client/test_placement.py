from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.layouts import layouts
from trimtab_client import Balance, InvalidArgumentError, Placement
from trimtab_server.solver import evaluate

placements = layouts().map(lambda layout: Placement.of(*layout))


@given(placements)
def test_maps_are_those_of_an_obvious_loop(placement: Placement) -> None:
    layers, slots = placement.phy2log.shape
    for layer in range(layers):
        slots_of = [[] for _ in range(placement.num_experts)]
        for slot in range(slots):
            expert = placement.phy2log[layer, slot]
            assert placement.rank[layer, slot] == len(slots_of[expert])
            slots_of[expert].append(slot)
        assert placement.logcnt[layer].tolist() == [len(s) for s in slots_of]
        width = placement.log2phy.shape[2]
        padded = [s + [-1] * (width - len(s)) for s in slots_of]
        assert placement.log2phy[layer].tolist() == padded
    assert placement.log2phy.shape[2] == placement.logcnt.max()


@given(placements, st.integers(0, 2**32))
def test_balance_is_what_the_server_evaluates(placement: Placement, seed: int) -> None:
    rng = np.random.default_rng(seed)
    load = rng.integers(0, 3, placement.logcnt.shape) * rng.integers(1, 10**6)

    ours = placement.balance(load)
    theirs = evaluate(placement.phy2log.copy(), load, placement.num_gpus)

    for name in ("gpu_load", "imbalance", "balancedness"):
        np.testing.assert_allclose(
            getattr(ours, name), getattr(theirs, name).numpy(), rtol=1e-12, err_msg=name
        )


def test_a_balance_computed_here_is_bounded_by_one() -> None:
    balance = Placement.untouched(2, 4, 4, 2).balance([[6.0, 3.0, 2.0, 1.0], [0.0] * 4])

    assert balance.bound.tolist() == [1.0, 1.0]
    assert balance.imbalance.tolist() == [1.5, 1.0], "a layer without load is balanced"
    assert balance.gap.tolist() == [0.5, 0.0]


def test_the_gap_is_the_excess_over_the_bound_and_never_negative() -> None:
    bound = np.array([1.2, 1.2, 1.0])
    balance = Balance(np.ones((3, 2)), np.array([1.5, np.nextafter(1.2, 1), 1.0]), bound)

    assert balance.gap.tolist() == [pytest.approx(0.25), 0.0, 0.0]


def test_the_untouched_layout_repeats_the_first_experts() -> None:
    placement = Placement.untouched(2, 3, 4, 2)

    assert placement.phy2log.tolist() == [[0, 1, 2, 0], [0, 1, 2, 0]]


def test_a_placement_is_a_read_only_copy() -> None:
    array = np.array([[0, 1]])
    placement = Placement.of(array, 2, 1)
    array[0, 0] = 1

    assert placement.phy2log.tolist() == [[0, 1]]
    for own in (placement.phy2log, placement.logcnt, placement.rank, placement.log2phy):
        assert own.dtype == np.int32
        with pytest.raises(ValueError, match="read-only"):
            own[0] = 0


def test_placements_are_equal_by_digest() -> None:
    one, same = Placement.of([[0, 1]], 2, 1), Placement.of(np.array([[0, 1]], np.int8), 2, 1)

    assert one == same
    assert len({one, same}) == 1
    assert one != Placement.of([[0, 1]], 2, 2)
    assert one != "another thing"


@pytest.mark.parametrize(
    ("phy2log", "num_gpus", "complaint"),
    [
        ([[0.0, 1.0]], 1, "phy2log: dtype float64"),
        ([[0, 2]], 1, r"phy2log\[0, 1\]: 2 is not an expert in \[0, 2\)"),
        ([[0, 1], [-1, 0]], 1, r"phy2log\[1, 0\]: -1 is not an expert in \[0, 2\)"),
        ([[0, 1], [1, 1]], 1, "phy2log: expert 0 has no slot in layer 1"),
        ([[0, 1, 1]], 2, r"num_gpus: 2 does not divide the number of slots \(3\)"),
        ([[0, 1]], 0, "num_gpus: 0 does not divide"),
    ],
)
def test_what_is_no_placement_is_refused(
    phy2log: list[list[int]], num_gpus: int, complaint: str
) -> None:
    with pytest.raises(InvalidArgumentError, match=complaint):
        Placement.of(phy2log, 2, num_gpus)


def test_balance_wants_a_load_of_the_same_experts() -> None:
    with pytest.raises(InvalidArgumentError, match=r"load: shape \(1, 3\) is not \[L, E\]"):
        Placement.untouched(1, 4, 4, 2).balance(np.ones((1, 3)))
