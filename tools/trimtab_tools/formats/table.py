"""Loads and placements as tables, with one row for each number.

A table of loads has the columns `layer`, `expert` and `load`, and `window` if it is a trace. A
table of a placement has the columns `layer`, `slot` and `expert`. Each layer (and window) needs all
of its rows: zeros that were left out could not be told from experts that do not exist. Layers and
windows may begin with any number.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from trimtab_client.exceptions import invalid
from trimtab_tools.formats.layout import Array, SavedPlacement, array, chosen, entry, unnamed

_PLACED = ("layer", "slot", "expert")


class Table:
    """See the module. A file without the names of columns is one array, as it stands."""

    def load(self, content: Any, path: Path, key: str | None) -> Array:
        """See `Layout.load`; the key is the name of the column with the numbers."""
        if not isinstance(content, Mapping):
            return unnamed(content, key, path, "the load")
        key = key or "load"
        where = ("window", "layer", "expert") if "window" in content else ("layer", "expert")
        return _filled(content, where, chosen(content, key, path), path)

    def placement(self, content: Any, path: Path) -> Array:
        """See `Layout.placement`."""
        if not isinstance(content, Mapping):
            return array(content, path, "phy2log")
        *where, expert = _PLACED
        return _filled(content, where, _column(content, expert, path), path)

    def content(self, saved: SavedPlacement, path: Path) -> Any:
        """See `Layout.content`."""
        del path
        phy2log_LR = saved.placement.phy2log
        layer, slot = np.indices(phy2log_LR.shape).reshape(2, -1)
        columns = layer + saved.first_layer, slot, phy2log_LR.ravel()
        return dict(zip(_PLACED, columns, strict=True))


def _column(content: Mapping[str, Any], name: str, path: Path) -> Array:
    numbers = array(entry(content, name, path), path, name)
    if not numbers.size:
        raise invalid(str(path), "has no rows")
    if numbers.dtype.kind not in "iu" or numbers.min() < 0:
        raise invalid(str(path), f"{name} is not a column of integers >= 0")
    return numbers


def _filled(content: Mapping[str, Any], where: Sequence[str], numbers: Array, path: Path) -> Array:
    """An array with a number for each row; `where` names the columns with its place.

    Raises:
        InvalidArgumentError: a place has two rows, or none.
    """
    columns = [_column(content, name, path) for name in where]
    lows = [*(int(column.min()) for column in columns[:-1]), 0]
    shape = [int(column.max()) - low + 1 for column, low in zip(columns, lows, strict=True)]
    # Before anything of that size is made: a wrong column may have huge numbers.
    if math.prod(shape) < len(numbers):
        raise invalid(str(path), f"has {len(numbers)} rows for {_by(shape)} {_names(where)}")
    if math.prod(shape) > len(numbers):
        why = f"has {len(numbers)} rows, not one for each of {_by(shape)} {_names(where)}"
        raise invalid(str(path), f"{why}; rows of zeros are needed too")
    places = tuple(column - low for column, low in zip(columns, lows, strict=True))
    filled = np.zeros(shape, np.bool_)
    filled[places] = True
    if not filled.all():
        gap = np.unravel_index(int(filled.argmin()), shape)
        at = (f"{name} {low + int(x)}" for name, low, x in zip(where, lows, gap, strict=True))
        raise invalid(str(path), f"has no row for {', '.join(at)}, and two for another")
    cells = np.empty(shape, numbers.dtype)
    cells[places] = numbers
    return cells


def _by(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape))


def _names(where: Sequence[str]) -> str:
    return " x ".join(f"{name}s" for name in where)
