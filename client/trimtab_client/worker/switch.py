"""A worker's side of the switch: the rules P5 to P9 of PROTOCOL.md.

No clock, no socket, no thread: each method takes what has happened and returns what is to be
done about it, in order. Whoever calls it takes care that calls do not overlap.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from trimtab_client.placement import Placement
from trimtab_client.worker.effects import (
    Complain,
    Discard,
    Effect,
    Flip,
    Note,
    OfferedSwitch,
    Order,
    Prepare,
    Send,
)
from trimtab_protocol.history import Flipped, InForce, Process
from trimtab_protocol.messages import (
    Abort,
    Accepted,
    Answer,
    Applied,
    Commit,
    Discarded,
    Held,
    HeldState,
    Hello,
    Prepared,
    Refused,
    Welcome,
)
from trimtab_protocol.version import Version


class _State(Enum):
    """P5, with the flip itself as a state."""

    ACCEPTED = HeldState.ACCEPTED
    PREPARED = HeldState.PREPARED
    ARMED = HeldState.ARMED
    FLIPPING = "flipping"
    DISCARDING = HeldState.DISCARDING


@dataclass
class _Holding:
    """An offer that was accepted.

    Attributes:
        offer: it.
        state: how far it has come.
        transferring: whether staging is being written.
        contributed: whether the group may be about to start its collective transfer:
            this rank has said that it is ready, and not heard whether all are.
    """

    offer: OfferedSwitch
    state: _State = _State.ACCEPTED
    transferring: bool = False
    contributed: bool = False


class WorkerSwitch:
    """The worker's state machine.

    Attributes:
        group_id: the group that it belongs to.
        gpus: the GPUs that it owns.
        placement: what it serves by.
        in_force: the version of that; None before its first epoch.
        term: the highest that it has heard from a server.
    """

    def __init__(
        self,
        *,
        group_id: str,
        worker: str,
        incarnation: int,
        gpus: tuple[int, ...],
        placement: Placement,
        collective: bool = False,
    ) -> None:
        self.group_id = group_id
        self.gpus = gpus
        self.placement = placement
        self.in_force: Version | None = None
        self.term = 0
        self._process = Process(worker, incarnation)
        self._collective = collective
        self._stream: int | None = None
        self._holding: _Holding | None = None
        # Offers up to this one have been applied, aborted or refused: if they come, they are late.
        self._settled = Version(0, 0)
        self._highest = 0
        self._flipped_at: int | None = None

    # The session.

    def connected(self, stream: int) -> Hello:
        """A stream to the server is open, and takes the place of any other: say this first.

        Args:
            stream: its number, higher than that of any before.
        """
        self._stream = stream
        return Hello(
            group_id=self.group_id,
            worker=self._process.worker,
            incarnation=self._process.incarnation,
            stream=stream,
            gpus=self.gpus,
            placement=self.placement,
            in_force=self.in_force,
            held=self._held(),
            flipped_at=self._flipped_at,
            term=self.term,
            epoch=self._settled.epoch,
            generation=self._highest,
        )

    def disconnected(self, stream: int) -> None:
        """A stream broke. Nothing else changes: the worker serves on."""
        if stream == self._stream:
            self._stream = None

    def heard(self, term: int) -> bool:
        """A server of this term said something: whether that counts. Of a lower one it is void."""
        if term < self.term:
            return False
        self.term = term
        return True

    def ordered(self, stream: int, term: int, order: Order) -> list[Effect]:
        """The server gave an order; on an older stream it is void too."""
        if stream != self._stream or not self.heard(term):
            return []
        match order:
            case Welcome():
                return self._welcomed(order)
            case OfferedSwitch():
                return self._offered(order)
            case Commit():
                return self._committed(order)
            case Abort():
                return self._aborted(order.version)

    # The engine.

    def prepared(self, version: Version, failure: str | None = None) -> list[Effect]:
        """The transfer of an offer has ended, and with what failure if any."""
        holding = self._holding
        if holding is None or holding.offer.version != version or not holding.transferring:
            return []
        holding.transferring = False
        if holding.state is _State.DISCARDING:
            return self._drop(holding)
        if failure is not None:
            return self._refuse(holding.offer, failure, freed=True)
        holding.state = _State.PREPARED
        return self._send(Prepared(version, holding.offer.placement.digest))

    def contribute(self) -> tuple[int, int]:
        """What this rank brings to the barrier: the generations accepted and armed, or 0."""
        holding = self._holding
        if holding is None or holding.state in (_State.DISCARDING, _State.FLIPPING):
            return 0, 0
        ready = holding.state is _State.ACCEPTED and not holding.transferring
        holding.contributed = self._collective and ready
        generation = holding.offer.version.generation
        return generation, generation if holding.state is _State.ARMED else 0

    def agreed(self, accepted: int, armed: int) -> list[Effect]:
        """The barrier's result: the minimum over all ranks of what each has brought."""
        holding = self._holding
        if holding is None:
            return []
        generation = holding.offer.version.generation
        if holding.contributed:
            holding.contributed = False
            if accepted >= generation:
                # All ranks see this result, so all start: also where an Abort has come since.
                holding.transferring = True
                return [Prepare(holding.offer)]
            if holding.state is _State.DISCARDING:
                return self._drop(holding)
        if holding.state is _State.ARMED and armed >= generation:
            holding.state = _State.FLIPPING
            return [Flip(holding.offer)]
        return []

    def flipped(self, step: int) -> list[Effect]:
        """The flip is done: `step` is the first that runs by the new placement."""
        holding = self._holding
        if holding is None or holding.state is not _State.FLIPPING:
            return [Complain(f"flipped at step {step} without being asked to")]
        offer, self._holding = holding.offer, None
        self.placement, self.in_force = offer.placement, offer.version
        self._settled, self._flipped_at = offer.version, step
        note = Note(Flipped(self._process, offer.version, offer.placement.digest, step))
        return [note, *self._send(Applied(offer.version, offer.placement.digest, step))]

    def regroup(
        self, group_id: str, placement: Placement, gpus: tuple[int, ...] | None = None
    ) -> list[Effect]:
        """The engine has formed a new group, which serves by `placement`; connect anew.

        `gpus` are those that this worker owns now; None: the same.
        """
        self.group_id, self._stream = group_id, None
        self.gpus = gpus or self.gpus
        if placement != self.placement:
            self.placement, self.in_force, self._flipped_at = placement, None, None
        if self._holding is None:
            return []
        # The old group's barrier gives no result any more.
        self._holding.contributed = False
        return self._discard(self._holding)

    # The server's orders.

    def _welcomed(self, order: Welcome) -> list[Effect]:
        version, digest = order.version, self.placement.digest
        if self.in_force is not None and version.epoch <= self.in_force.epoch:
            return []
        if order.digest != digest:
            return [Complain(f"epoch {version.epoch} begins with a placement not in force here")]
        self.in_force, self._flipped_at = version, None
        self._settle(version)
        note = Note(InForce(self._process, self.group_id, version, digest))
        return [note, *(self._discard(self._holding) if self._holding else [])]

    def _offered(self, offer: OfferedSwitch) -> list[Effect]:
        if offer.version <= self._settled:
            return []
        if self._holding is not None and self._holding.offer.version == offer.version:
            return self._repeat(self._holding)
        why_not = self._why_not(offer)
        if why_not is not None:
            return self._refuse(offer, why_not)
        self._holding = _Holding(offer, transferring=not self._collective)
        self._highest = max(self._highest, offer.version.generation)
        effects = self._send(Accepted(offer.version, offer.placement.digest))
        return [*effects, *([] if self._collective else [Prepare(offer)])]

    def _committed(self, order: Commit) -> list[Effect]:
        if order.version == self.in_force and self._flipped_at is not None:
            return self._send(Applied(order.version, self.placement.digest, self._flipped_at))
        holding = self._holding
        if holding is None or holding.offer.version != order.version:
            return [Complain(f"commit of {order.version}, which is not held")]
        if holding.offer.placement.digest != order.digest:
            return [Complain(f"commit of {order.version} with another digest")]
        if holding.state in (_State.ACCEPTED, _State.DISCARDING):
            return [Complain(f"commit of {order.version}, which is {holding.state.name}")]
        if holding.state is _State.PREPARED:
            holding.state = _State.ARMED
        return []

    def _aborted(self, version: Version) -> list[Effect]:
        holding = self._holding
        if version == self.in_force:
            return [Complain(f"abort of {version}, which is in force")]
        if holding is None or holding.offer.version != version:
            self._settle(version)
            return self._send(Discarded(version))
        if holding.state in (_State.ARMED, _State.FLIPPING):
            return [Complain(f"abort of {version}, which is {holding.state.name}")]
        return self._discard(holding)

    # What is held.

    def _why_not(self, offer: OfferedSwitch) -> str | None:
        if self._holding is not None:
            return f"{self._holding.offer.version} is held"
        if offer.base != self.in_force or offer.base_digest != self.placement.digest:
            return f"the base is {offer.base}, and {self.in_force} is in force"
        return None

    def _repeat(self, holding: _Holding) -> list[Effect]:
        """Answer a repeated offer as the first one."""
        version, digest = holding.offer.version, holding.offer.placement.digest
        if holding.state is _State.ACCEPTED:
            return self._send(Accepted(version, digest))
        if holding.state is _State.DISCARDING:
            return []
        return self._send(Prepared(version, digest))

    def _refuse(self, offer: OfferedSwitch, reason: str, *, freed: bool = False) -> list[Effect]:
        if freed:
            self._holding = None
        self._settle(offer.version)
        refused = self._send(Refused(offer.version, offer.placement.digest, reason))
        return [*([Discard(offer)] if freed else []), *refused]

    def _discard(self, holding: _Holding) -> list[Effect]:
        """Give up what is held; a transfer that runs, or may be about to, ends first."""
        self._settle(holding.offer.version)
        if holding.transferring or holding.contributed:
            holding.state = _State.DISCARDING
            return []
        return self._drop(holding)

    def _drop(self, holding: _Holding) -> list[Effect]:
        self._holding = None
        return [Discard(holding.offer), *self._send(Discarded(holding.offer.version))]

    def _settle(self, version: Version) -> None:
        self._settled = max(self._settled, version)
        self._highest = max(self._highest, version.generation)

    def _held(self) -> Held | None:
        holding = self._holding
        if holding is None:
            return None
        # To the server, a flip that has begun is one that has not.
        state = _State.ARMED if holding.state is _State.FLIPPING else holding.state
        return Held(holding.offer.version, HeldState(state.value))

    def _send(self, answer: Answer) -> list[Effect]:
        return [] if self._stream is None else [Send(answer)]
