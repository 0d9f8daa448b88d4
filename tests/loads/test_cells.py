"""Cells are cut from reports of any length, and are complete once all workers have them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimtab_server.loads.cells import CELL_STEPS, Cells, Piece
from trimtab_server.loads.estimates import Loads

LOAD = np.array([[3.0, 1.0, 4.0]])


def filled(**reports: list[int]) -> Cells:
    """Cells of workers with the same steady load, from reports of so many steps."""
    cells = Cells()
    for worker, lengths in reports.items():
        for steps in lengths:
            cells.add(worker, LOAD * steps, steps)
    return cells


def completed(cells: Cells, awaited: set[str], last: dict[str, Loads] | None = None) -> list[Piece]:
    return list(cells.completed(awaited, lambda: last or {}))


def tokens(found: list[Piece], worker: str) -> float:
    return float(sum(piece.tokens[worker].sum() for piece in found))


def lengths(found: list[Piece]) -> list[int]:
    return [piece.cells for piece in found]


@given(st.lists(st.integers(1, 100), min_size=1, max_size=30))
def test_each_cell_of_a_steady_load_has_the_same_tokens_however_reports_are_cut(cuts):
    found = completed(filled(w=cuts), {"w"})
    assert sum(lengths(found)) == sum(cuts) // CELL_STEPS
    for piece in found:
        assert piece.tokens["w"] == pytest.approx(LOAD * CELL_STEPS * piece.cells)


@given(st.lists(st.tuples(st.integers(1, 50), st.integers(0, 1000)), min_size=1, max_size=20))
def test_no_token_is_lost_or_counted_twice(reports):
    cells, steps = Cells(), sum(steps for steps, _ in reports)
    for span, count in reports:
        cells.add("w", np.array([[float(count)]]), span)
    # As many more steps as fill the last cell.
    cells.add("w", np.array([[0.0]]), CELL_STEPS - steps % CELL_STEPS)
    found = completed(cells, {"w"})
    assert tokens(found, "w") == pytest.approx(sum(count for _, count in reports))


def test_the_cells_of_a_long_report_stay_one_span():
    assert lengths(completed(filled(w=[160]), {"w"})) == [1, 9]


def test_a_piece_tells_whether_its_reports_end_and_how_long_they_are():
    found = completed(filled(w=[16, 40, 24]), {"w"})
    assert lengths(found) == [1, 1, 1, 1, 1]
    # The second report continues into the fourth cell, with which the third one ends.
    assert [piece.ends for piece in found] == [True, False, False, False, True]
    assert [piece.longest for piece in found] == [1.0, 2.5, 2.5, 2.5, 1.5]


def test_a_piece_ends_only_if_the_reports_of_all_workers_end():
    found = completed(filled(a=[48], b=[16] * 3), {"a", "b"})
    assert lengths(found) == [1, 1, 1]
    assert [piece.ends for piece in found] == [False, False, True]


def test_a_cell_is_complete_once_all_awaited_workers_have_it():
    cells = filled(a=[48])
    assert completed(cells, {"a", "b"}) == []
    cells.add("b", LOAD * 32, 32)
    found = completed(cells, {"a", "b"})
    assert lengths(found) == [1, 1]
    assert tokens(found, "a") == tokens(found, "b") == LOAD.sum() * 32
    assert completed(cells, {"a", "b"}) == []


def test_an_absent_worker_counts_with_its_last_rate():
    (piece,) = completed(filled(a=[16]), {"a"}, {"a": LOAD, "gone": 2 * LOAD})
    assert piece.cells == 1
    assert piece.tokens["gone"] == pytest.approx(2 * LOAD * CELL_STEPS)


def test_late_cells_are_not_counted_again():
    """They were completed with the worker's last rate, since nobody waits for it for ever."""
    cells, last = filled(a=[16] * 12), {"a": LOAD, "late": LOAD}
    found = completed(cells, {"a", "late"}, last)
    missed = sum(lengths(found))
    assert 12 - missed <= 8
    assert tokens(found, "late") == pytest.approx(LOAD.sum() * CELL_STEPS * missed)
    cells.add("late", 100 * LOAD * 16 * (missed + 1), 16 * (missed + 1))
    (piece,) = completed(cells, {"a", "late"}, last)
    assert piece.cells == 1, "all of its cells except one were completed without it"
    assert piece.tokens["late"] == pytest.approx(100 * LOAD * CELL_STEPS)


def test_a_worker_is_awaited_for_twice_the_length_of_a_report():
    cells = filled(a=[160])
    assert completed(cells, {"a", "b"}, {"a": LOAD}) == []
    cells.add("b", LOAD * 160, 160)
    assert sum(lengths(completed(cells, {"a", "b"}))) == 10


def test_a_worker_that_starts_again_is_not_awaited_for_earlier_cells():
    """Cells that others have counted by then are completed without it, and later ones with it."""
    cells, last = filled(a=[16] * 5), {"a": LOAD}
    assert completed(cells, {"a", "b"}, last) == []
    cells.forget("b")
    assert sum(lengths(completed(cells, {"a", "b"}, last))) == 5
    cells.add("a", 2 * LOAD * 16, 16)
    cells.add("b", 3 * LOAD * 16, 16)
    (piece,) = completed(cells, {"a", "b"}, last)
    assert piece.tokens["a"] == pytest.approx(2 * LOAD * CELL_STEPS)
    assert piece.tokens["b"] == pytest.approx(3 * LOAD * CELL_STEPS)


def test_cells_of_a_group_that_is_never_complete_are_merged_and_no_token_is_lost():
    cells = Cells()
    for step in range(500):
        cells.add("a", LOAD * 16 * step, 16)
    assert len(cells._cutters["a"].spans) <= 9
    cells.add("b", LOAD * 16 * 500, 16 * 500)
    found = completed(cells, {"a", "b"})
    assert tokens(found, "a") == pytest.approx(LOAD.sum() * 16 * sum(range(500)))


def test_no_cell_is_complete_without_awaited_workers():
    assert completed(filled(a=[16]), set()) == []
