"""A deployment's epochs and switches: the rules P2 to P4, P7 and P8 of PROTOCOL.md.

The state machine has no clock, socket or disk. Each method takes an event and returns the effects
to carry out, in order. The same record and the same calls give the same effects.
"""

from __future__ import annotations

from dataclasses import replace

from trimtab_protocol.messages import (
    Abort,
    Accepted,
    Answer,
    Applied,
    Discarded,
    Hello,
    Prepared,
    Refused,
    Welcome,
)
from trimtab_protocol.placement import Placement
from trimtab_protocol.version import Version
from trimtab_server.domain.errors import FailedPreconditionError
from trimtab_server.rollout import events
from trimtab_server.rollout.effects import Alarm, Cause, Close, Effect, Save, Send
from trimtab_server.rollout.epochs import next_record, refusal_reason
from trimtab_server.rollout.groups import (
    armed_with,
    covers,
    differing_digests,
    epoch_blocked_reason,
    may_flip,
    owned_twice,
)
from trimtab_server.rollout.open_switch import OpenSwitch, Phase
from trimtab_server.rollout.record import Origin, Record, Stage
from trimtab_server.rollout.sessions import Session, is_member

_MAX_NEWEST = 10_000
"""Number of workers whose newest session is remembered, to refuse older sessions."""


class Rollout(OpenSwitch):
    """The server's state machine of one deployment: its sessions, its epochs, its open switch.

    After a restart, create one from the record that was saved last.

    Args:
        record: the durable state of the deployment.
        num_gpus: the number of GPUs of the deployment.
    """

    def __init__(self, record: Record, num_gpus: int) -> None:
        super().__init__(record)
        self._num_gpus = num_gpus
        self._draining = False
        # Incarnation and stream of the newest session of each worker.
        self._newest: dict[str, tuple[int, int]] = {}

    @property
    def serving(self) -> tuple[Version | None, ...]:
        """The version that each connected member serves with."""
        return tuple(session.in_force for session in self._present())

    # Events.

    def started(self) -> list[Effect]:
        """The server has started. Call this first."""
        return list(events.newest(self.record))

    def joined(self, number: int, hello: Hello) -> list[Effect]:
        """A session began. Its number must be unique."""
        reason = self._refusal_reason(hello)
        if reason is not None:
            return [Close(number, reason, final=True)]
        effects: list[Effect] = []
        self._remember(hello)
        old = self._sessions.of(hello.worker)
        if old is not None:
            effects += [Close(old.number, "a newer session of this worker began", final=True)]
            effects += self.left(old.number)
        others = [session.hello for session in self._sessions.of_group(hello.group_id)]
        conflict = owned_twice([*others, hello])
        if conflict is not None:
            return [*effects, Alarm(conflict), Close(number, conflict, final=False)]
        session = Session(number, hello, held=hello.held.version if hello.held else None)
        self._sessions.add(session)
        if is_member(self.record.epoch, hello):
            return [*effects, *self._resume(session)]
        return [*effects, *self._open_epoch()]

    def left(self, number: int) -> list[Effect]:
        """A session ended, for whatever reason."""
        session = self._sessions.find(number)
        if session is None:
            return []
        self._sessions.remove(session)
        effects: list[Effect] = []
        if is_member(self.record.epoch, session.hello):
            reason = f"the session of {session.hello.worker!r} was lost"
            effects = self._abort_offer(Cause.LOST, reason)
        # A new group may have waited for the end of this session.
        return [*effects, *self._open_epoch()]

    def answered(self, number: int, answer: Answer) -> list[Effect]:
        """A worker answered. Answers that the server does not wait for go to the history only."""
        session = self._sessions.find(number)
        if session is None:
            return [events.ignored(answer, None)]
        worker, effects = session.hello.worker, None
        match answer:
            # These two may be about an older epoch, so the worker need not be a member.
            case Discarded():
                effects = self._discarded(session, answer)
            case Refused():
                effects = self._refused(session, answer)
            case _ if not is_member(self.record.epoch, session.hello):
                pass
            case Prepared():
                effects = self._prepared(session, answer)
            case Applied():
                effects = self._applied(session, answer)
            case Accepted():
                effects = None if self._switch_of(answer, *Phase) is None else []
        return [events.ignored(answer, worker)] if effects is None else effects

    def expired(self, version: Version) -> list[Effect]:
        """The time to prepare an offer is over: see `Expire`."""
        if self.record.switch is None or self.record.switch.version != version:
            return []
        return self._abort_offer(
            Cause.LATE, f"not prepared in time by {', '.join(self.waiting_for)}"
        )

    def resume(self) -> list[Effect]:
        """Allow offers again after `pause`."""
        self.record = replace(self.record, paused=None)
        return [Save(self.record)]

    def pin(self, placement: Placement | None, origin: Origin = Origin.PINNED) -> list[Effect]:
        """Record a pin, or None to remove it. The caller starts the rollout to it."""
        self.record = replace(self.record, pinned=placement, pin_origin=origin)
        return [Save(self.record)]

    @property
    def is_draining(self) -> bool:
        """Whether nothing is offered any more, since the server is about to stop."""
        return self._draining

    def drain(self) -> list[Effect]:
        """Offer nothing any more, since the server is about to stop."""
        self._draining = True
        return self._abort_offer(Cause.DRAIN, "the server is shutting down")

    def propose(
        self, placement: Placement, origin: Origin = Origin.UNKNOWN, *, begins: bool = True
    ) -> list[Effect]:
        """Offer a placement, of the same shape as the one in force.

        Args:
            placement: the placement.
            origin: why it is offered.
            begins: whether a rollout begins with it. The placement in force is then one to go back
                to.

        Raises:
            FailedPreconditionError: see `blocked_reason`.
        """
        reason = self.blocked_reason()
        if reason is not None:
            raise FailedPreconditionError(reason)
        return self._offer(placement, origin, begins=begins)

    def blocked_reason(self) -> str | None:
        """Why nothing can be offered now; None if it can."""
        record = self.record
        if self._draining:
            return "the server is shutting down"
        if record.paused is not None:
            return f"the deployment is paused: {record.paused}"
        if record.epoch is None:
            return self._epoch_blocked_reason() or "no group is complete yet"
        if record.switch is not None:
            phase, waiting = self.phase.value, ", ".join(self.waiting_for)
            return f"the switch to {record.switch.version} is {phase}: waiting for {waiting}"
        reasons = (self._member_blocked_reason(worker) for worker in self._members)
        reason = next((reason for reason in reasons if reason is not None), None)
        return reason and (self._epoch_blocked_reason() or reason)

    def _member_blocked_reason(self, worker: str) -> str | None:
        session = self._sessions.of(worker)
        if session is None:
            return f"{worker!r} has no session"
        if session.in_force is None:
            return (
                f"{worker!r} serves with another placement than {self.record.in_force}: its engine "
                "has to form a new group"
            )
        if session.in_force != self.record.in_force:
            return f"{worker!r} serves with {session.in_force}, not {self.record.in_force}"
        if session.held is not None:
            return f"{worker!r} still holds {session.held}"
        return None

    # Epochs.

    def _refusal_reason(self, hello: Hello) -> str | None:
        """Why a worker cannot join; None if it can."""
        reason, newest = refusal_reason(self.record, hello), self._newest.get(hello.worker, (0, 0))
        if reason is None and (hello.incarnation, hello.stream) < newest:
            return (
                f"incarnation: {hello.worker!r} has begun a newer session than stream "
                f"{hello.stream} of incarnation {hello.incarnation}"
            )
        return reason

    def _remember(self, hello: Hello) -> None:
        """Remember the newest session of a worker. Above the limit, forget the oldest entry."""
        self._newest.pop(hello.worker, None)
        self._newest[hello.worker] = hello.incarnation, hello.stream
        if len(self._newest) > _MAX_NEWEST:
            del self._newest[next(iter(self._newest))]

    def _open_epoch(self) -> list[Effect]:
        """Open an epoch if the sessions form one new, complete group with one placement."""
        hellos = [session.hello for session in self._sessions]
        group_ids = {hello.group_id for hello in hellos}
        if len(group_ids) != 1 or not covers(hellos, self._num_gpus):
            return []
        (group_id,) = group_ids
        if self.record.epoch is not None and self.record.epoch.group_id == group_id:
            return []
        if may_flip(hellos):
            return self._wait_for_flip()
        difference = differing_digests(hellos)
        if difference is not None:
            return [Alarm(f"group {group_id!r}: {difference}", mismatch=True)]
        old, (epoch, self.record) = self.record, next_record(self.record, hellos, self.present)
        version = Version(epoch.number, 0)
        return [
            Save(self.record),
            *events.aborted(old.switch),
            events.epoch_opened(epoch, self.record),
            *(effect for session in self._present() for effect in self._welcome(session, version)),
        ]

    def _epoch_blocked_reason(self) -> str | None:
        """Why a complete new group has no epoch yet; None if there is no such group."""
        epoch, hellos = self.record.epoch, [session.hello for session in self._sessions]
        if epoch is not None and all(hello.group_id == epoch.group_id for hello in hellos):
            return None
        return epoch_blocked_reason(hellos, self._num_gpus)

    def _wait_for_flip(self) -> list[Effect]:
        """Close all sessions that have armed a version, so that the epoch opens after the flip.

        Their workers know of a commit that the store of this server has lost.
        """
        armed = [(each.number, armed_with(each.hello)) for each in self._sessions]
        reason = "is armed, but this server does not know it: connect again once it is in force"
        return [Close(number, f"{v} {reason}", final=False) for number, v in armed if v]

    def _welcome(self, session: Session, version: Version) -> list[Effect]:
        session.in_force = version
        return [Send(session.number, Welcome(version, session.hello.placement.digest))]

    # Members that come back.

    def _resume(self, session: Session) -> list[Effect]:
        """A member has connected again: rule P8."""
        effects = self._check_generation(session.hello)
        version, switch = self._version_of(session.hello), self.record.switch
        if version is None:
            return [*effects, *self._diverged(session.hello, is_old=bool(effects))]
        effects += self._welcome(session, version)
        if session.held is not None and (switch is None or session.held != switch.version):
            effects += [Send(session.number, Abort(session.held))]
        if switch is None:
            return effects
        holds = session.held == switch.version
        if self.phase is Phase.ABORTING:
            abort = Send(session.number, Abort(switch.version))
            return [*effects, *([abort] if holds else self._aborted_by(switch, session))]
        if version == switch.version:
            return [*effects, *self._flipped(switch, session, session.hello.flipped_at)]
        if holds:
            return [*effects, *self._send_commit(switch, session)]
        worker = session.hello.worker
        return [*effects, *self._pause_for(f"{worker!r} has lost the committed {switch.version}")]

    def _version_of(self, hello: Hello) -> Version | None:
        """The version of this epoch that a member serves with; None if its placement is wrong."""
        (in_force, placement), switch = self.record.served, self.record.switch
        digest, version = hello.placement.digest, hello.in_force
        if version is None or version.epoch < in_force.epoch:
            # The worker has not had its Welcome, so it serves with its first placement.
            version = Version(in_force.epoch, 0)
        possible = {in_force: placement.digest}
        if switch is not None and switch.stage is Stage.COMMITTED:
            possible[switch.version] = switch.placement.digest
        return version if possible.get(version) == digest else None

    def _check_generation(self, hello: Hello) -> list[Effect]:
        """Pause if a member knows later generations, since the store is then an old copy."""
        record = self.record
        if hello.generation <= record.last_generation:
            return []
        self.record = replace(record, last_generation=hello.generation)
        return self._pause_for(
            f"{hello.worker!r} knows generation {hello.generation}, but the store ends at "
            f"{record.last_generation}, so the store is an old copy"
        )

    def _diverged(self, hello: Hello, *, is_old: bool) -> list[Effect]:
        because = ", since the store is an old copy" if is_old else ""
        return self._pause_for(
            f"{hello.worker!r} serves with {hello.in_force}, digest "
            f"{hello.placement.digest.hex()[:12]}, which is neither {self.record.in_force} "
            f"nor a committed version{because}",
            mismatch=True,
        )
