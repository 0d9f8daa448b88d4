"""How balanced a window was: golden cases, and what is left out."""

from __future__ import annotations

import numpy as np
import pytest

from trimtab_client import Placement
from trimtab_tools.simulate.messages import WindowCounts
from trimtab_tools.simulate.windows import WindowCounter, Window, Windows, moves_of

# Two GPUs of two slots, three experts: expert 0 has a slot on each.
UNTOUCHED = Placement.of([[0, 1, 2, 0], [0, 1, 2, 0]], 3, 2)


def counted(window: int, counts_LE: list[list[int]], steps: int = 4) -> WindowCounts:
    return WindowCounts(window, steps, np.array(counts_LE, np.int64))


def test_served_is_what_gpus_have_processed_and_untouched_what_they_would_have():
    windows = Windows(UNTOUCHED, 4)
    # Layer 0: rank 0 has processed 30 of 40; layer 1: both 20 of 40.
    windows.add(0, counted(0, [[0, 30, 0], [10, 10, 0]]))
    assert windows.complete == []
    windows.add(1, counted(0, [[4, 0, 6], [10, 0, 10]]))

    # Untouched, layer 0: GPU 0 has 4 / 2 + 30 = 32 of 40, so 32 / 20; layer 1: 20 / 20.
    assert windows.complete == [Window(0, untouched=(1.6 + 1.0) / 2, served=(1.5 + 1.0) / 2)]
    assert windows.ended == 1


def test_a_layer_without_load_is_balanced():
    windows = Windows(UNTOUCHED, 4)
    for rank in (0, 1):
        windows.add(rank, counted(0, [[0, 0, 0], [0, 0, 0]]))

    assert windows.complete == [Window(0, 1.0, 1.0)]


@pytest.mark.parametrize("parts", [[(0, 4)], [(0, 4), (1, 3)]])
def test_a_window_that_a_rank_has_not_seen_all_of_is_left_out(parts):
    windows = Windows(UNTOUCHED, 4)
    for rank, steps in parts:
        windows.add(rank, counted(0, [[1, 2, 3], [1, 2, 3]], steps))
    for rank in (0, 1):
        windows.add(rank, counted(1, [[1, 2, 3], [1, 2, 3]]))

    assert [window.number for window in windows.complete] == [1]
    assert windows.ended == 2


def test_a_rank_tallies_by_the_experts_that_its_slots_hold_at_each_step():
    tally = WindowCounter(2, 1)
    before_LS, after_LS = np.array([[0, 1]], np.int32), np.array([[2, 2]], np.int32)

    assert tally.add(0, np.array([[5, 7]]), before_LS, 3) is None
    ended = tally.add(1, np.array([[1, 2]]), after_LS, 3)
    assert ended is not None
    assert (ended.window, ended.steps, ended.counts_LE.tolist()) == (0, 2, [[5, 7, 3]])
    assert tally.add(2, np.array([[1, 1]]), after_LS, 3) is None, "there is no such window"
    assert tally.add(3, np.array([[1, 1]]), after_LS, 3) is None


def test_a_rank_that_begins_within_a_window_says_how_much_of_it_it_has_seen():
    tally = WindowCounter(4, 2)
    own_LS = np.array([[0, 1]], np.int32)
    ended = [tally.add(step, np.array([[1, 0]]), own_LS, 2) for step in range(2, 8)]

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
    assert moves_of(np.array(before, np.int32), np.array(after, np.int32)) == moves
