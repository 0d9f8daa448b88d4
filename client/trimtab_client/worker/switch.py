"""A worker's side of the switch: the rules P5 to P9 of PROTOCOL.md.

The state machine has no clock, socket or thread. Each method takes an event and returns the
effects to carry out, in order. The caller must not let two calls overlap.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from trimtab_client.placement import Placement
from trimtab_client.worker.offer import SwitchOffer
from trimtab_protocol import messages
from trimtab_protocol.history import Flipped, InForce, Process
from trimtab_protocol.version import Version

Order = messages.Welcome | SwitchOffer | messages.Commit | messages.Abort


@dataclass(frozen=True)
class Prepare:
    """Fill staging with the weights that the offer needs, and call `prepared` at the end."""

    offer: SwitchOffer


@dataclass(frozen=True)
class Discard:
    """Free the staging of an offer. No transfer into it is running."""

    offer: SwitchOffer


@dataclass(frozen=True)
class Flip:
    """Serve with the offer's placement from this step boundary on, then call `flipped`."""

    offer: SwitchOffer


@dataclass(frozen=True)
class Complain:
    """A call or message broke the protocol, and was ignored."""

    reason: str


Effect = Prepare | Discard | Flip | Complain | InForce | Flipped | messages.Answer
"""What the caller has to do. Events of the history are for the observer of the session. Answers
are for the current stream: if that breaks, the next Hello makes up for them."""


class _State(Enum):
    """The states of P5, and one for the flip itself."""

    ACCEPTED = messages.HeldState.ACCEPTED
    PREPARED = messages.HeldState.PREPARED
    ARMED = messages.HeldState.ARMED
    FLIPPING = "flipping"
    DISCARDING = messages.HeldState.DISCARDING


@dataclass
class _Holding:
    """The offer that this worker has accepted.

    Attributes:
        transferring: whether staging is being written.
        contributed: whether this rank has told the barrier that it is ready for a collective
            transfer, and does not know yet whether all ranks are.
    """

    offer: SwitchOffer
    state: _State = _State.ACCEPTED
    transferring: bool = False
    contributed: bool = False


@dataclass(kw_only=True, eq=False)
class WorkerSwitch:
    """The state machine of one worker. `WorkerOptions` describes what it is made of.

    Attributes:
        placement: the placement that it serves with.
        collective: whether a transfer starts at the same step on all ranks.
        in_force: the version of that placement; None before its first epoch.
        term: the highest term that it has seen from a server.
    """

    group_id: str
    worker: str
    incarnation: int
    gpus: tuple[int, ...]
    placement: Placement
    collective: bool = False
    in_force: Version | None = field(default=None, init=False)
    term: int = field(default=0, init=False)
    _stream: int | None = field(default=None, init=False)
    _holding: _Holding | None = field(default=None, init=False)
    # Offers up to this version were applied, aborted or refused. Later copies are ignored.
    _settled: Version = field(default=Version(0, 0), init=False)
    _highest: int = field(default=0, init=False)
    _flipped_at: int | None = field(default=None, init=False)

    # Events of the session.

    def connected(self, stream: int) -> messages.Hello:
        """The first message on a new stream, which replaces all others: they have lower numbers."""
        self._stream = stream
        return messages.Hello(
            group_id=self.group_id,
            worker=self.worker,
            incarnation=self.incarnation,
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
        """A stream broke. The worker goes on serving, and its state does not change."""
        if stream == self._stream:
            self._stream = None

    def accept_term(self, term: int) -> bool:
        """Whether a message of this term counts. One of a lower term than seen before does not."""
        if term < self.term:
            return False
        self.term = term
        return True

    def ordered(self, stream: int, term: int, order: Order) -> list[Effect]:
        """The server sent an order. It is ignored on an older stream or in a lower term."""
        if stream != self._stream or not self.accept_term(term):
            return []
        match order:
            case messages.Welcome():
                return self._welcomed(order)
            case SwitchOffer():
                return self._offered(order)
            case messages.Commit():
                return self._committed(order)
            case messages.Abort():
                return self._aborted(order.version)

    # Events of the engine.

    def prepared(self, version: Version, failure: str | None = None) -> list[Effect]:
        """The transfer of an offer ended. `failure` is None if it succeeded."""
        holding = self._holding
        if holding is None or holding.offer.version != version or not holding.transferring:
            return []
        holding.transferring = False
        if holding.state is _State.DISCARDING:
            return self._drop(holding)
        if failure is not None:
            return self._refuse(holding.offer, failure, discard=True)
        holding.state = _State.PREPARED
        return self._send(messages.Prepared(version, holding.offer.digest))

    def contribute(self) -> tuple[int, int]:
        """This rank's part of the barrier: the generations accepted and armed, 0 for none."""
        holding = self._holding
        if holding is None or holding.state in (_State.DISCARDING, _State.FLIPPING):
            return 0, 0
        ready = holding.state is _State.ACCEPTED and not holding.transferring
        holding.contributed = self.collective and ready
        generation = holding.offer.version.generation
        return generation, generation if holding.state is _State.ARMED else 0

    def agreed(self, accepted: int, armed: int) -> list[Effect]:
        """The barrier ended. Its result is the minimum over all ranks of each part."""
        holding = self._holding
        if holding is None:
            return []
        generation = holding.offer.version.generation
        if holding.contributed:
            holding.contributed = False
            if accepted >= generation:
                # All ranks see this result, so all start, even if an Abort has come meanwhile.
                holding.transferring = True
                return [Prepare(holding.offer)]
            if holding.state is _State.DISCARDING:
                return self._drop(holding)
        if holding.state is _State.ARMED and armed >= generation:
            holding.state = _State.FLIPPING
            return [Flip(holding.offer)]
        return []

    def flipped(self, step: int) -> list[Effect]:
        """The flip is done. `step` is the first step that runs with the new placement."""
        holding = self._holding
        if holding is None or holding.state is not _State.FLIPPING:
            return [Complain(f"flipped at step {step}, but no flip was due")]
        offer, self._holding = holding.offer, None
        self.placement, self.in_force = offer.placement, offer.version
        self._settled, self._flipped_at = offer.version, step
        event = Flipped(Process(self.worker, self.incarnation), offer.version, offer.digest, step)
        return [event, *self._send(messages.Applied(offer.version, offer.digest, step))]

    def regroup(
        self, group_id: str, placement: Placement, gpus: tuple[int, ...] | None = None
    ) -> list[Effect]:
        """The engine has formed a new group, which serves with `placement`. Connect again.

        `gpus` are the GPUs that this worker owns now; None if they are the same.
        """
        self.group_id, self._stream = group_id, None
        self.gpus = gpus or self.gpus
        if placement != self.placement:
            self.placement, self.in_force, self._flipped_at = placement, None, None
        if self._holding is None:
            return []
        # The barrier of the old group will not return a result.
        self._holding.contributed = False
        return self._discard(self._holding)

    # Orders of the server.

    def _welcomed(self, order: messages.Welcome) -> list[Effect]:
        version, digest = order.version, self.placement.digest
        if self.in_force is not None and version.epoch <= self.in_force.epoch:
            return []
        if order.digest != digest:
            reason = f"epoch {version.epoch} begins with a placement that is not in force here"
            return [Complain(reason)]
        self.in_force, self._flipped_at = version, None
        self._settle(version)
        event = InForce(Process(self.worker, self.incarnation), self.group_id, version, digest)
        return [event, *(self._discard(self._holding) if self._holding else [])]

    def _offered(self, offer: SwitchOffer) -> list[Effect]:
        if offer.version <= self._settled:
            return []
        if self._holding is not None:
            held = self._holding.offer.version
            if held == offer.version:
                return self._repeat(self._holding)
            return self._refuse(offer, f"the worker already holds {held}")
        if offer.base != self.in_force or offer.base_digest != self.placement.digest:
            base = f"the offer's base is {offer.base}, but {self.in_force} is in force here"
            return self._refuse(offer, base)
        self._holding = _Holding(offer, transferring=not self.collective)
        self._highest = max(self._highest, offer.version.generation)
        accepted = self._send(messages.Accepted(offer.version, offer.digest))
        return accepted if self.collective else [*accepted, Prepare(offer)]

    def _committed(self, order: messages.Commit) -> list[Effect]:
        if order.version == self.in_force and self._flipped_at is not None:
            digest = self.placement.digest
            return self._send(messages.Applied(order.version, digest, self._flipped_at))
        holding = self._holding
        if holding is None or holding.offer.version != order.version:
            return [Complain(f"commit of {order.version}, which this worker does not hold")]
        if holding.offer.digest != order.digest:
            return [Complain(f"commit of {order.version} with a digest that is not its own")]
        if holding.state in (_State.ACCEPTED, _State.DISCARDING):
            return [Complain(f"commit of {order.version}, which is {holding.state.name} here")]
        if holding.state is _State.PREPARED:
            holding.state = _State.ARMED
        return []

    def _aborted(self, version: Version) -> list[Effect]:
        holding = self._holding
        if version == self.in_force:
            return [Complain(f"abort of {version}, which is in force here")]
        if holding is None or holding.offer.version != version:
            self._settle(version)
            return self._send(messages.Discarded(version))
        if holding.state in (_State.ARMED, _State.FLIPPING):
            return [Complain(f"abort of {version}, which is {holding.state.name} here")]
        return self._discard(holding)

    # The offer that is held.

    def _repeat(self, holding: _Holding) -> list[Effect]:
        """Answer a repeated offer like the first one."""
        version, digest = holding.offer.version, holding.offer.digest
        if holding.state is _State.ACCEPTED:
            return self._send(messages.Accepted(version, digest))
        if holding.state is _State.DISCARDING:
            return []
        return self._send(messages.Prepared(version, digest))

    def _refuse(self, offer: SwitchOffer, reason: str, *, discard: bool = False) -> list[Effect]:
        if discard:
            self._holding = None
        self._settle(offer.version)
        refused = self._send(messages.Refused(offer.version, offer.digest, reason))
        return [*([Discard(offer)] if discard else []), *refused]

    def _discard(self, holding: _Holding) -> list[Effect]:
        """Give up the offer. A transfer that runs, or may be about to start, ends first."""
        self._settle(holding.offer.version)
        if holding.transferring or holding.contributed:
            holding.state = _State.DISCARDING
            return []
        return self._drop(holding)

    def _drop(self, holding: _Holding) -> list[Effect]:
        self._holding = None
        return [Discard(holding.offer), *self._send(messages.Discarded(holding.offer.version))]

    def _settle(self, version: Version) -> None:
        self._settled = max(self._settled, version)
        self._highest = max(self._highest, version.generation)

    def _held(self) -> messages.Held | None:
        holding = self._holding
        if holding is None:
            return None
        # The server does not know the state of a flip that has begun.
        state = _State.ARMED if holding.state is _State.FLIPPING else holding.state
        return messages.Held(holding.offer.version, messages.HeldState(state.value))

    def _send(self, answer: messages.Answer) -> list[Effect]:
        return [] if self._stream is None else [answer]
