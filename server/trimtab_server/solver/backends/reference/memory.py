"""Splits a batch into parts whose temporary tensors are small."""

from __future__ import annotations

from torch import Tensor

MAX_CANDIDATES = 1 << 23
"""Candidates in one part: about 64 MiB for each temporary, unless a single row has more."""


def split_rows(batch: Tensor, candidates_per_row: int) -> list[Tensor]:
    """The batch in parts, each of at most MAX_CANDIDATES candidates or of one row."""
    return list(batch.split(max(1, MAX_CANDIDATES // candidates_per_row)))
