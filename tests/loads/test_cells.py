"""Cells: cut from any reports, and complete once all workers have them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimtab_server.loads.cells import CELL_STEPS, Cells
from trimtab_server.loads.estimates import Loads

LOAD = np.array([[3.0, 1.0, 4.0]])


def completed(
    cells: Cells, awaited: set[str], last: dict[str, Loads] | None = None
) -> list[tuple[dict[str, Loads], int]]:
    return list(cells.completed(awaited, lambda: last or {}))


def tokens(found: list[tuple[dict[str, Loads], int]], worker: str) -> float:
    return float(sum(each[worker].sum() for each, _ in found))


@given(st.lists(st.integers(1, 100), min_size=1, max_size=30))
def test_however_a_steady_load_is_cut_each_cell_has_its_part(cuts):
    cells = Cells()
    for steps in cuts:
        cells.add("w", LOAD * steps, steps)
    found = completed(cells, {"w"})
    assert sum(number for _, number in found) == sum(cuts) // CELL_STEPS
    for each, number in found:
        assert each["w"] == pytest.approx(LOAD * CELL_STEPS * number)


@given(st.lists(st.tuples(st.integers(1, 50), st.integers(0, 1000)), min_size=1, max_size=20))
def test_no_token_is_lost_or_counted_twice(reports):
    cells, steps = Cells(), sum(steps for steps, _ in reports)
    for span, count in reports:
        cells.add("w", np.array([[float(count)]]), span)
    # As many more as fill the last cell.
    cells.add("w", np.array([[0.0]]), CELL_STEPS - steps % CELL_STEPS)
    found = completed(cells, {"w"})
    assert tokens(found, "w") == pytest.approx(sum(count for _, count in reports))


def test_a_span_stays_one_however_many_cells_it_has():
    cells = Cells()
    cells.add("w", LOAD * 160, 160)
    assert [number for _, number in completed(cells, {"w"})] == [1, 9]


def test_a_cell_is_complete_once_all_who_are_awaited_have_it():
    cells = Cells()
    cells.add("a", LOAD * 48, 48)
    assert completed(cells, {"a", "b"}) == []
    cells.add("b", LOAD * 32, 32)
    found = completed(cells, {"a", "b"})
    assert [number for _, number in found] == [1, 1]
    assert tokens(found, "a") == tokens(found, "b") == LOAD.sum() * 32
    assert completed(cells, {"a", "b"}) == []


def test_who_is_away_counts_as_it_did_last():
    cells = Cells()
    cells.add("a", LOAD * 16, 16)
    ((found, number),) = completed(cells, {"a"}, {"a": LOAD, "gone": 2 * LOAD})
    assert number == 1
    assert found["gone"] == pytest.approx(2 * LOAD * CELL_STEPS)


def test_what_comes_late_is_not_counted_again():
    """Those cells were counted as it did last; nobody waits for it for ever."""
    cells = Cells()
    last = {"a": LOAD, "late": LOAD}
    for _ in range(12):
        cells.add("a", LOAD * 16, 16)
    found = completed(cells, {"a", "late"}, last)
    assert len(found) == 12 - 8
    assert tokens(found, "late") == LOAD.sum() * CELL_STEPS * len(found)
    cells.add("late", 100 * LOAD * 16 * 5, 16 * 5)
    (first, *_) = found = completed(cells, {"a", "late"}, last)
    assert len(found) == 1, "four of its five cells were counted already"
    assert first[0]["late"] == pytest.approx(100 * LOAD * CELL_STEPS)


def test_who_begins_anew_owes_nothing():
    cells = Cells()
    for _ in range(12):
        cells.add("a", LOAD * 16, 16)
    completed(cells, {"a", "b"}, {"a": LOAD})
    cells.forget("b")
    cells.add("b", LOAD * 16, 16)
    assert len(completed(cells, {"a", "b"}, {"a": LOAD})) == 1


def test_without_anybody_awaited_nothing_is_complete():
    cells = Cells()
    cells.add("a", LOAD * 16, 16)
    assert completed(cells, set()) == []
