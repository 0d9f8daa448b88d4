"""The version of a placement that a group of workers has, or is to have, in force."""

from __future__ import annotations

from typing import NamedTuple


class Version(NamedTuple):
    """Compared by epoch, then by generation; see PROTOCOL.md, P2 and P3.

    Attributes:
        epoch: counts the groups that have served a deployment, from 1.
        generation: counts the placements offered in an epoch; 0 is what the
            group served when its epoch opened.
    """

    epoch: int
    generation: int

    def __str__(self) -> str:
        return f"{self.epoch}.{self.generation}"
