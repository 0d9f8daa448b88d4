"""The placement that would be in force if the decisions of shadow mode were carried out."""

from __future__ import annotations

from trimtab_protocol.placement import Placement


class ShadowPlacement:
    """Starts at the placement in force, and then follows the decisions of shadow mode.

    Attributes:
        placement: the one that would be in force; None while none is in force.
        moves: net moves of all decisions since it started.
    """

    def __init__(self) -> None:
        self.placement: Placement | None = None
        self.moves = 0
        self._in_force: Placement | None = None
        self._noted: Placement | None = None

    def follow(self, in_force: Placement | None) -> Placement | None:
        """The shadow placement. It starts again whenever another placement is in force."""
        if in_force is not self._in_force:
            self._in_force = self.placement = in_force
            self.moves = 0
        return self.placement

    def move_to(self, placement: Placement, moves: int) -> None:
        """Carry out a decision."""
        self.placement = placement
        self.moves += moves

    def unnoted(self) -> tuple[Placement, int] | None:
        """The placement and `moves` if they were not returned before, else None."""
        if self.placement is None or self.placement is self._noted:
            return None
        self._noted = self.placement
        return self.placement, self.moves

    def reset(self) -> None:
        """End shadow mode."""
        self.placement = self._in_force = self._noted = None
        self.moves = 0
