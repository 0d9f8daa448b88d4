"""Cells: cut from any reports, and complete once all workers have them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimtab_server.loads.cells import CELL_STEPS, Cells, Piece
from trimtab_server.loads.estimates import Loads

LOAD = np.array([[3.0, 1.0, 4.0]])


def completed(cells: Cells, awaited: set[str], last: dict[str, Loads] | None = None) -> list[Piece]:
    return list(cells.completed(awaited, lambda: last or {}))


def tokens(found: list[Piece], worker: str) -> float:
    return float(sum(piece.tokens[worker].sum() for piece in found))


def lengths(found: list[Piece]) -> list[int]:
    return [piece.cells for piece in found]


@given(st.lists(st.integers(1, 100), min_size=1, max_size=30))
def test_however_a_steady_load_is_cut_each_cell_has_its_part(cuts):
    cells = Cells()
    for steps in cuts:
        cells.add("w", LOAD * steps, steps)
    found = completed(cells, {"w"})
    assert sum(lengths(found)) == sum(cuts) // CELL_STEPS
    for piece in found:
        assert piece.tokens["w"] == pytest.approx(LOAD * CELL_STEPS * piece.cells)


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
    assert lengths(completed(cells, {"w"})) == [1, 9]


def test_what_belongs_to_one_report_says_so():
    cells = Cells()
    for steps in (16, 40, 24):
        cells.add("w", LOAD * steps, steps)
    found = completed(cells, {"w"})
    assert lengths(found) == [1, 1, 1, 1, 1]
    # The second report goes on into the fourth cell, which the third one ends with.
    assert [piece.ends for piece in found] == [True, False, False, False, True]
    assert [piece.longest for piece in found] == [1.0, 2.5, 2.5, 2.5, 1.5]


def test_a_cell_ends_where_the_reports_of_all_workers_do():
    cells = Cells()
    cells.add("a", LOAD * 48, 48)
    for _ in range(3):
        cells.add("b", LOAD * 16, 16)
    found = completed(cells, {"a", "b"})
    assert lengths(found) == [1, 1, 1]
    assert [piece.ends for piece in found] == [False, False, True]


def test_a_cell_is_complete_once_all_who_are_awaited_have_it():
    cells = Cells()
    cells.add("a", LOAD * 48, 48)
    assert completed(cells, {"a", "b"}) == []
    cells.add("b", LOAD * 32, 32)
    found = completed(cells, {"a", "b"})
    assert lengths(found) == [1, 1]
    assert tokens(found, "a") == tokens(found, "b") == LOAD.sum() * 32
    assert completed(cells, {"a", "b"}) == []


def test_who_is_away_counts_as_it_did_last():
    cells = Cells()
    cells.add("a", LOAD * 16, 16)
    (piece,) = completed(cells, {"a"}, {"a": LOAD, "gone": 2 * LOAD})
    assert piece.cells == 1
    assert piece.tokens["gone"] == pytest.approx(2 * LOAD * CELL_STEPS)


def test_what_comes_late_is_not_counted_again():
    """Those cells were counted as it did last; nobody waits for it for ever."""
    cells = Cells()
    last = {"a": LOAD, "late": LOAD}
    for _ in range(12):
        cells.add("a", LOAD * 16, 16)
    found = completed(cells, {"a", "late"}, last)
    missed = sum(lengths(found))
    assert 12 - missed <= 8
    assert tokens(found, "late") == pytest.approx(LOAD.sum() * CELL_STEPS * missed)
    cells.add("late", 100 * LOAD * 16 * (missed + 1), 16 * (missed + 1))
    (piece,) = completed(cells, {"a", "late"}, last)
    assert piece.cells == 1, "all of its cells but one were counted already"
    assert piece.tokens["late"] == pytest.approx(100 * LOAD * CELL_STEPS)


def test_who_reports_seldom_is_waited_for_as_long_as_a_report_and_twice():
    cells = Cells()
    cells.add("a", LOAD * 160, 160)
    assert completed(cells, {"a", "b"}, {"a": LOAD}) == []
    cells.add("b", LOAD * 160, 160)
    assert sum(lengths(completed(cells, {"a", "b"}))) == 10


def test_who_begins_anew_is_not_waited_for_and_is_no_cell_behind_afterwards():
    """What others had counted by then was without it, and what they count next is with it."""
    cells, last = Cells(), {"a": LOAD}
    for _ in range(5):
        cells.add("a", LOAD * 16, 16)
    assert completed(cells, {"a", "b"}, last) == []
    cells.forget("b")
    assert sum(lengths(completed(cells, {"a", "b"}, last))) == 5
    cells.add("a", 2 * LOAD * 16, 16)
    cells.add("b", 3 * LOAD * 16, 16)
    (piece,) = completed(cells, {"a", "b"}, last)
    assert piece.tokens["a"] == pytest.approx(2 * LOAD * CELL_STEPS)
    assert piece.tokens["b"] == pytest.approx(3 * LOAD * CELL_STEPS)


def test_what_waits_for_a_group_that_is_never_complete_stays_bounded_and_is_all_there():
    cells = Cells()
    for step in range(500):
        cells.add("a", LOAD * 16 * step, 16)
    assert len(cells._cutters["a"].spans) <= 9
    cells.add("b", LOAD * 16 * 500, 16 * 500)
    found = completed(cells, {"a", "b"})
    assert tokens(found, "a") == pytest.approx(LOAD.sum() * 16 * sum(range(500)))


def test_without_anybody_awaited_nothing_is_complete():
    cells = Cells()
    cells.add("a", LOAD * 16, 16)
    assert completed(cells, set()) == []
