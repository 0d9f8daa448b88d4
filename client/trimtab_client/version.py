"""The version of a placement that a deployment serves by."""

from __future__ import annotations

from typing import NamedTuple


class Version(NamedTuple):
    """The version of a placement, compared by epoch, then by generation.

    Attributes:
        epoch: counts the groups that have served a deployment, from 1.
        generation: counts the placements offered in an epoch; 0 is what the
            group served when its epoch opened.
    """

    epoch: int
    generation: int

    def __str__(self) -> str:
        return f"{self.epoch}.{self.generation}"
