"""Loads and placements as tables, with one row for each number.

A table of loads has the columns `layer`, `expert` and `load`, and `window` if it is a trace. Rows
that are missing are 0. A table of a placement has the columns `layer`, `slot` and `expert`. Layers
and windows may have any numbers; they are taken in ascending order.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from trimtab_client.exceptions import invalid
from trimtab_client.placement import Placement
from trimtab_tools.formats.layout import Array, SavedPlacement, array, chosen, entry, unnamed

_MAX_CELLS = 1 << 28
"""More would be a wrong column rather than a model: a number of an expert decides the size."""

_PLACED = ("layer", "slot", "expert")


class Table:
    """See the module. A file without the names of columns is one array, as it stands."""

    def fits(self, content: Any) -> bool:
        """Any content: files of tables have nothing else."""
        del content
        return True

    def load(self, content: Any, path: Path, key: str | None) -> Array:
        """See `Layout.load`; the key is the name of the column with the numbers."""
        if not isinstance(content, Mapping):
            return unnamed(content, key, path, "the load")
        key = key or "load"
        where = ("window", "layer", "expert") if "window" in content else ("layer", "expert")
        cells = [_column(content, name, path) for name in where]
        numbers = chosen(content, key, path)
        # Experts are numbered from 0; an expert without a row has no load.
        bounds = [_ranked(cell) for cell in cells[:-1]]
        indices = [*(index for _, index in bounds), cells[-1]]
        shape = [*(size for size, _ in bounds), int(cells[-1].max()) + 1]
        return _filled(_cells(shape, 0, numbers.dtype, path), indices, numbers, path)

    def placement(self, content: Any, path: Path) -> Array:
        """See `Layout.placement`."""
        if not isinstance(content, Mapping):
            return array(content, path, "phy2log")
        layer, slot, expert = (_column(content, name, path) for name in _PLACED)
        layers, row = _ranked(layer)
        phy2log_LR = _filled(
            _cells([layers, int(slot.max()) + 1], -1, np.int64, path), [row, slot], expert, path
        )
        missing = np.argwhere(phy2log_LR < 0)
        if len(missing):
            at = f"layer {np.unique(layer)[missing[0, 0]]}, slot {missing[0, 1]}"
            raise invalid(str(path), f"has no row for {at}")
        return phy2log_LR

    def content(self, saved: SavedPlacement, path: Path) -> Any:
        """See `Layout.content`."""
        del path
        return placement_columns(saved.placement, saved.first_layer)


def placement_columns(placement: Placement, first_layer: int) -> dict[str, Array]:
    """The columns of a placement."""
    layer, slot = np.indices(placement.phy2log.shape).reshape(2, -1)
    columns = layer + first_layer, slot, placement.phy2log.ravel()
    return dict(zip(_PLACED, columns, strict=True))


def _column(content: Mapping[str, Any], name: str, path: Path) -> Array:
    numbers = array(entry(content, name, path), path, name)
    if not numbers.size:
        raise invalid(str(path), "has no rows")
    if numbers.dtype.kind not in "iu" or numbers.min() < 0:
        raise invalid(str(path), f"{name} is not a column of integers >= 0")
    return numbers


def _cells(shape: Sequence[int], value: int, dtype: Any, path: Path) -> Array:
    """An array that has this value everywhere."""
    if math.prod(shape) > _MAX_CELLS:
        raise invalid(str(path), f"has numbers for {' x '.join(map(str, shape))} cells")
    return np.full(shape, value, dtype)


def _ranked(numbers: Array) -> tuple[int, Array]:
    """How many distinct numbers there are, and the place of each among them."""
    distinct, place = np.unique(numbers, return_inverse=True)
    return len(distinct), place


def _filled(cells: Array, indices: Sequence[Array], numbers: Array, path: Path) -> Array:
    """The cells, with the numbers at the indices; refused if a cell gets two."""
    flat = np.ravel_multi_index(tuple(indices), cells.shape)
    first = np.unique(flat, return_index=True)[1]
    if len(first) != len(flat):
        again = np.setdiff1d(np.arange(len(flat)), first)[0]
        raise invalid(str(path), f"row {again + 1} is for the same cell as a row before it")
    cells.reshape(-1)[flat] = numbers
    return cells
