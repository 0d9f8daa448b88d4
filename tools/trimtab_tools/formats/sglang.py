"""SGLang: files for `--init-expert-location`, and dumps of its expert distribution recorder.

Of the recorder, mode "stat" writes one file, of rank 0, in which `logical_count` [buffer, L, E] is
a ring: rows that are not filled yet are 0, and the others are in no order of time. So it is one
load, their sum. Modes "per_pass" and "per_token" write a file for each rank, with the counts of
that rank's tokens in each forward pass: add the files of all ranks up.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from trimtab_client.exceptions import invalid
from trimtab_tools.formats.layout import Array, SavedPlacement, array, chosen, entry, has

_COUNT = "logical_count"
_MAP = "physical_to_logical_map"
_LAST_MAP = "last_physical_to_logical_map"
_OF_A_RING = "average_utilization_rate_over_window"

MARKS = _COUNT, _MAP, _LAST_MAP
"""Names by which its content is known."""


class Sglang:
    """See the module."""

    def load(self, content: Any, path: Path, key: str | None) -> Array:
        """See `Layout.load`: the counts of logical experts."""
        if not isinstance(content, Mapping):
            raise invalid(str(path), f"has no names, such as {_COUNT!r}")
        if key is None and "records" in content:
            return _by_pass(content, path)
        counts = chosen(content, key or _COUNT, path)
        is_ring = key in (None, _COUNT) and _OF_A_RING in content and counts.ndim == 3
        if not is_ring:
            return counts
        return np.asarray(counts.sum(axis=0, dtype=np.int64 if counts.dtype.kind in "iu" else None))

    def placement(self, content: Any, path: Path) -> Array:
        """See `Layout.placement`: the map, or the last one that was in force in a recording."""
        name = _LAST_MAP if has(content, _LAST_MAP) else _MAP
        return array(entry(content, name, path), path, name)

    def content(self, saved: SavedPlacement, path: Path) -> Any:
        """See `Layout.content`. SGLang accepts no other key, and counts dense layers too."""
        del path
        phy2log_LR, experts = saved.placement.phy2log, saved.placement.num_experts
        dense_R = np.arange(phy2log_LR.shape[1]) % experts
        return {_MAP: np.concatenate([np.tile(dense_R, (saved.first_layer, 1)), phy2log_LR])}


def _by_pass(content: Any, path: Path) -> Array:
    """int64 [passes, L, E], the tokens of one rank, by forward pass."""
    records = content["records"]
    if not isinstance(records, Sequence) or not records:
        raise invalid(str(path), "records is empty: nothing was recorded")
    phy2log_LR = array(entry(content, _LAST_MAP, path), path, _LAST_MAP).astype(np.int64)
    if phy2log_LR.ndim != 2 or not phy2log_LR.size or phy2log_LR.min() < 0:
        raise invalid(str(path), f"{_LAST_MAP} does not have an expert in each slot, [L, R]")
    layers, slots = phy2log_LR.shape
    passes: dict[int, Array] = {}
    for index, record in enumerate(records):
        name = f"records[{index}].global_physical_count"
        counts_LR = array(entry(record, "global_physical_count", path), path, name)
        if counts_LR.shape != (layers, slots):
            found = list(counts_LR.shape)
            raise invalid(str(path), f"{name} is {found}, but {_LAST_MAP} is {[layers, slots]}")
        number = int(entry(record, "forward_pass_id", path))
        # Two overlapping batches of one pass have a record each.
        passes[number] = passes.get(number, 0) + counts_LR.astype(np.int64)
    load_TLE = np.zeros((len(passes), layers, int(phy2log_LR.max()) + 1), np.int64)
    for window, number in enumerate(sorted(passes)):
        np.add.at(load_TLE[window], (np.arange(layers)[:, None], phy2log_LR), passes[number])
    return load_TLE
