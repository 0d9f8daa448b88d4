"""What would be in force, had the decisions of shadow mode been carried out."""

from __future__ import annotations

from trimtab_protocol.placement import Placement


class Shadow:
    """Follows the placement in force, and goes its own way from there.

    Attributes:
        placement: that would be in force; None before there was one.
        moves: net, that it would have taken to get there.
    """

    def __init__(self) -> None:
        self.placement: Placement | None = None
        self.moves = 0
        self._in_force: Placement | None = None

    def follow(self, in_force: Placement | None) -> Placement | None:
        """What would be in force; another placement in force is where it begins anew."""
        if in_force is not self._in_force:
            self._in_force = self.placement = in_force
            self.moves = 0
        return self.placement

    def go_to(self, placement: Placement, moves: int) -> None:
        """A decision would have led here."""
        self.placement = placement
        self.moves += moves

    def end(self) -> None:
        """Shadow mode is over."""
        self.placement = self._in_force = None
        self.moves = 0
