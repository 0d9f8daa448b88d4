"""The version of a placement that a group of workers serves by."""

from __future__ import annotations

from typing import NamedTuple

MAX_NUMBER = (1 << 53) - 1
"""Highest term, epoch and generation: JSON and SQLite keep it exactly, and it can still rise."""


class Version(NamedTuple):
    """The version of a placement, compared by epoch, then by generation (PROTOCOL.md, P2 and P3).

    Attributes:
        epoch: counts the groups that have served a deployment, from 1.
        generation: counts the placements offered to the deployment, over all epochs; 0 is the
            placement that the group served when its epoch opened.
    """

    epoch: int
    generation: int

    def __str__(self) -> str:
        return f"{self.epoch}.{self.generation}"
