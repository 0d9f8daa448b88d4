"""A rollout in stages: one switch after another, each as large as the workers have room for."""

from __future__ import annotations

from collections.abc import Sequence

from trimtab_protocol.history import Other
from trimtab_protocol.placement import Placement
from trimtab_protocol.version import Version
from trimtab_server.domain.errors import FailedPreconditionError
from trimtab_server.engine.sessions import Sessions
from trimtab_server.rollout.cutting import next_piece
from trimtab_server.rollout.effects import Effect, Note
from trimtab_server.rollout.open_switch import Phase
from trimtab_server.rollout.record import Origin
from trimtab_server.rollout.rollout import Rollout


class StagedRollout:
    """The placement that a deployment is on its way to.

    Attributes:
        target: that placement; None if there is none.
    """

    def __init__(self) -> None:
        self.target: Placement | None = None
        self._order: Sequence[int] = ()
        self._origin = Origin.UNKNOWN
        self._stage: Version | None = None

    def start(
        self,
        target: Placement,
        order: Sequence[int],
        origin: Origin,
        rollout: Rollout,
        sessions: Sessions,
    ) -> list[Effect]:
        """Offer the first stage: the layers that come first in `order`.

        Raises:
            FailedPreconditionError: nothing can be offered now.
        """
        self._order, self._origin = order, origin
        return self._offer_next(target, rollout, sessions, begins=True)

    def _offer_next(
        self, target: Placement, rollout: Rollout, sessions: Sessions, *, begins: bool
    ) -> list[Effect]:
        reason = rollout.blocked_reason()
        if reason is not None:
            raise FailedPreconditionError(reason)
        _, served = rollout.record.served
        piece = next_piece(served, target, sessions.limits, self._order)
        if piece is None:
            return []
        effects = rollout.propose(piece, self._origin, begins=begins)
        self.target = target
        switch = rollout.record.switch
        self._stage = None if switch is None else switch.version
        return effects

    def advance(self, rollout: Rollout, sessions: Sessions) -> list[Effect]:
        """Offer the next stage if the one before was applied. An abort ends the rollout."""
        target = self.target
        if target is None or rollout.phase in (Phase.OFFERED, Phase.COMMITTED):
            return []
        self.target = None
        # The stage was aborted, and the same must not be asked again.
        if rollout.record.in_force != self._stage:
            return []
        try:
            return self._offer_next(target, rollout, sessions, begins=False)
        except FailedPreconditionError as error:
            return [Note(Other("given_up", {"target": target.digest, "reason": str(error)}))]

    def abandon(self) -> None:
        """Go no further than the switch that is open."""
        self.target = None
