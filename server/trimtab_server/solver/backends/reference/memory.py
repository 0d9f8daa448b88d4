"""Splits a batch so that its temporaries stay small."""

from __future__ import annotations

from torch import Tensor

MOST_CANDIDATES = 1 << 23
"""Candidates held at once: about 64 MiB for each temporary, unless one row has more."""


def split_rows(batch: Tensor, candidates_per_row: int) -> list[Tensor]:
    """The batch in parts of as many rows as have MOST_CANDIDATES, at least one."""
    return list(batch.split(max(1, MOST_CANDIDATES // candidates_per_row)))
