"""The way to a placement: switch after switch, each as large as the workers have room for."""

from __future__ import annotations

from collections.abc import Sequence

from trimtab_protocol.history import Other
from trimtab_protocol.placement import Placement
from trimtab_protocol.version import Version
from trimtab_server.domain.errors import FailedPreconditionError
from trimtab_server.engine.connections import Connections
from trimtab_server.rollout.cutting import next_piece
from trimtab_server.rollout.effects import Effect, Note
from trimtab_server.rollout.rollout import Phase, Rollout


class Course:
    """Where a deployment is going.

    Attributes:
        target: a placement that is on its way; None if there is none.
    """

    def __init__(self) -> None:
        self.target: Placement | None = None
        self._order: Sequence[int] = ()
        self._piece: Version | None = None

    def set_out(
        self,
        target: Placement,
        order: Sequence[int],
        rollout: Rollout,
        connections: Connections,
    ) -> list[Effect]:
        """Offer the first piece of the way: of the layers that come first in `order`.

        Raises:
            FailedPreconditionError: nothing can be offered now.
        """
        reason = rollout.why_not()
        if reason is not None:
            raise FailedPreconditionError(reason)
        _, served = rollout.record.served
        piece = next_piece(served, target, connections.room, order)
        if piece is None:
            return []
        effects = rollout.propose(piece)
        self.target, self._order = target, order
        switch = rollout.record.switch
        self._piece = None if switch is None else switch.version
        return effects

    def go_on(self, rollout: Rollout, connections: Connections) -> list[Effect]:
        """Offer the next piece, once the one before is in force. An abort ends the way."""
        target = self.target
        if target is None or rollout.phase in (Phase.OFFERED, Phase.COMMITTED):
            return []
        self.target = None
        # Aborted, and perhaps over already: then nobody is to be asked for the same again.
        if rollout.record.in_force != self._piece:
            return []
        try:
            return self.set_out(target, self._order, rollout, connections)
        except FailedPreconditionError as error:
            return [Note(Other("given_up", {"target": target.digest, "reason": str(error)}))]
