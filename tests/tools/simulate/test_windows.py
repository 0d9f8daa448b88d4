"""The balance of windows: golden cases, and which windows are left out."""

from __future__ import annotations

import numpy as np
import pytest

from trimtab_client import Placement
from trimtab_tools.simulate.messages import WindowCounts
from trimtab_tools.simulate.windows import Window, WindowCounter, Windows, count_moves

# Two GPUs of two slots, three experts: expert 0 has a slot on each.
UNTOUCHED = Placement.of([[0, 1, 2, 0], [0, 1, 2, 0]], 3, 2)


def counts(window: int, counts_LE: list[list[int]], steps: int = 4) -> WindowCounts:
    return WindowCounts(window, steps, np.array(counts_LE, np.int64))


def test_served_counts_what_gpus_process_and_untouched_what_they_would_have_processed():
    windows = Windows(UNTOUCHED, 4)
    # Layer 0: rank 0 has processed 30 of 40; layer 1: both 20 of 40.
    windows.add(0, counts(0, [[0, 30, 0], [10, 10, 0]]))
    assert windows.complete == []
    windows.add(1, counts(0, [[4, 0, 6], [10, 0, 10]]))

    # Untouched, layer 0: GPU 0 has 4 / 2 + 30 = 32 of 40, so 32 / 20; layer 1: 20 / 20.
    assert windows.complete == [Window(0, untouched=(1.6 + 1.0) / 2, served=(1.5 + 1.0) / 2)]
    assert windows.ended == 1


def test_a_layer_without_load_is_balanced():
    windows = Windows(UNTOUCHED, 4)
    for rank in (0, 1):
        windows.add(rank, counts(0, [[0, 0, 0], [0, 0, 0]]))

    assert windows.complete == [Window(0, 1.0, 1.0)]


@pytest.mark.parametrize("parts", [[(0, 4)], [(0, 4), (1, 3)]])
def test_a_window_that_a_rank_has_not_counted_completely_is_left_out(parts):
    windows = Windows(UNTOUCHED, 4)
    for rank, steps in parts:
        windows.add(rank, counts(0, [[1, 2, 3], [1, 2, 3]], steps))
    for rank in (0, 1):
        windows.add(rank, counts(1, [[1, 2, 3], [1, 2, 3]]))

    assert [window.number for window in windows.complete] == [1]
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
