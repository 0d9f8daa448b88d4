"""The balance of windows: golden cases, and which windows are left out."""

from __future__ import annotations

import numpy as np
import pytest

from trimtab_client import Placement
from trimtab_tools.simulate.messages import WindowCounts
from trimtab_tools.simulate.shadow import ShadowPlacements
from trimtab_tools.simulate.windows import (
    ServedWindow,
    Window,
    WindowCounter,
    Windows,
    count_moves,
    no_redundancy_imbalance,
)

GPUS = 2


def counts(window: int, counts_LE: list[list[int]], steps: int = 4) -> WindowCounts:
    return WindowCounts(window, steps, np.array(counts_LE, np.int64))


def judged(windows: Windows) -> list[Window]:
    return [each.window for each in windows.complete]


def test_served_counts_what_gpus_process_and_no_redundancy_what_they_would_with_one_slot_each():
    windows = Windows(GPUS, 4)
    # Layer 0: rank 0 has processed 30 of 40; layer 1: both 20 of 40.
    windows.add(0, counts(0, [[0, 30, 0], [10, 10, 0]]))
    assert judged(windows) == []
    windows.add(1, counts(0, [[4, 0, 6], [10, 0, 10]]))

    # Experts 0 and 1 on GPU 0. Layer 0: it has 34 of 40, so 34 / 20; layer 1: 30 / 20.
    assert judged(windows) == [Window(0, no_redundancy=(1.7 + 1.5) / 2, served=(1.5 + 1.0) / 2)]
    assert windows.ended == 1


def test_a_layer_without_load_is_balanced():
    windows = Windows(GPUS, 4)
    for rank in (0, 1):
        windows.add(rank, counts(0, [[0, 0, 0], [0, 0, 0]]))

    assert judged(windows) == [Window(0, 1.0, 1.0)]


@pytest.mark.parametrize(
    ("load", "gpus", "imbalance"),
    [
        ([4, 2, 1, 1], 2, 6 / 4),
        ([4, 2, 1, 1], 4, 4 / 2),
        # Experts 0 and 1, 2 and 3, 4.
        ([1, 2, 3, 4, 5], 3, 7 / 5),
        ([3, 1], 4, 3 / 1),
    ],
)
def test_without_redundancy_experts_lie_in_order_as_evenly_as_they_can(load, gpus, imbalance):
    found = no_redundancy_imbalance(np.array([load]), gpus)

    assert found == pytest.approx(imbalance)


def test_a_placement_of_shadow_mode_counts_from_the_step_after_its_decision_on():
    first, second = (Placement.of([row], 2, 2) for row in ([0, 0, 1, 1], [0, 1, 0, 1]))
    shadow = ShadowPlacements(((2, first), (5, second)), moves=2)
    load_LE = np.array([[60, 20]])

    def imbalance(number: int) -> float:
        return shadow.imbalance(ServedWindow(Window(number, 1.0, 1.0), load_LE), 4)

    # The first is what was in force, from step 0 on; of window 1, it serves one step of four:
    # GPU 0 has 60 / 4 + 40 * 3 / 4 of 80.
    assert imbalance(0) == pytest.approx(60 / 40)
    assert imbalance(1) == pytest.approx(45 / 40)
    assert imbalance(2) == pytest.approx(1.0)


@pytest.mark.parametrize("parts", [[(0, 4)], [(0, 4), (1, 3)]])
def test_a_window_that_a_rank_has_not_counted_completely_is_left_out(parts):
    windows = Windows(GPUS, 4)
    for rank, steps in parts:
        windows.add(rank, counts(0, [[1, 2, 3], [1, 2, 3]], steps))
    for rank in (0, 1):
        windows.add(rank, counts(1, [[1, 2, 3], [1, 2, 3]]))

    assert [window.number for window in judged(windows)] == [1]
    assert windows.ended == 2


def test_tokens_count_for_the_expert_that_a_slot_holds_at_the_step():
    counter = WindowCounter(2, 1)
    before_LS, after_LS = np.array([[0, 1]], np.int32), np.array([[2, 2]], np.int32)

    assert counter.add(0, np.array([[5, 7]]), before_LS, 3) is None
    ended = counter.add(1, np.array([[1, 2]]), after_LS, 3)
    assert ended is not None
    assert (ended.window, ended.steps, ended.counts_LE.tolist()) == (0, 2, [[5, 7, 3]])
    assert counter.add(2, np.array([[1, 1]]), after_LS, 3) is None, "there is no such window"
    assert counter.add(3, np.array([[1, 1]]), after_LS, 3) is None


def test_a_rank_that_begins_within_a_window_reports_how_many_steps_it_has_counted():
    counter = WindowCounter(4, 2)
    own_LS = np.array([[0, 1]], np.int32)
    ended = [counter.add(step, np.array([[1, 0]]), own_LS, 2) for step in range(2, 8)]

    assert [(each.window, each.steps) for each in ended if each is not None] == [(0, 2), (1, 4)]


@pytest.mark.parametrize(
    ("before", "after", "moves"),
    [
        ([[0, 1], [2, 3]], [[1, 0], [2, 3]], 0),
        ([[0, 1], [2, 3]], [[0, 4], [3, 5]], 2),
        ([[0, 1], [2, 3]], [[4, 4], [2, 2]], 1),
    ],
)
def test_a_move_is_an_expert_that_is_new_to_the_gpu(before, after, moves):
    assert count_moves(np.array(before, np.int32), np.array(after, np.int32)) == moves
