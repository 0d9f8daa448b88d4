"""A deployment's epochs and switches: the rules P2 to P4, P7 and P8 of PROTOCOL.md.

No clock, no socket, no disk: each method takes what has happened and returns what is to be
done about it, in order. The same record and the same calls give the same effects.
"""

from __future__ import annotations

from dataclasses import replace
from enum import Enum

from trimtab_server.domain.errors import FailedPreconditionError
from trimtab_server.domain.placement import Placement
from trimtab_server.domain.version import Version
from trimtab_server.rollout import notes
from trimtab_server.rollout.effects import Alarm, Cause, Close, Effect, Expire, Save, Send
from trimtab_server.rollout.epochs import next_record, why_refused
from trimtab_server.rollout.groups import (
    armed_with,
    covers,
    differing_digests,
    may_flip,
    owned_twice,
    why_not_opened,
)
from trimtab_server.rollout.messages import (
    Abort,
    Accepted,
    Answer,
    Applied,
    Commit,
    Discarded,
    Hello,
    Offer,
    Prepared,
    Refused,
    Welcome,
)
from trimtab_server.rollout.record import Record, Stage, Switch
from trimtab_server.rollout.sessions import Session, Sessions, is_member

_MOST_NEWEST = 10_000
"""Workers whose newest session is remembered, so that an older one that comes late is known."""


class Phase(Enum):
    """P4."""

    IDLE = "idle"
    OFFERED = "offered"
    ABORTING = "aborting"
    COMMITTED = "committed"


class Rollout:
    """The server's state machine of one deployment.

    After a restart, make one from the record that was saved last.

    Attributes:
        record: all that is durable, as of the last `Save` among the effects returned.
    """

    def __init__(self, record: Record, num_gpus: int) -> None:
        self.record = record
        self._num_gpus = num_gpus
        self._sessions = Sessions()
        # Restarted without a durable commit: presumed aborted (P8).
        self._aborting = record.switch is not None and record.switch.stage is Stage.OFFERED
        self._draining = False
        self._newest: dict[str, tuple[int, int]] = {}
        # Members that have done what the phase waits for, and the steps that they flipped at.
        self._done: set[str] = set()
        self._steps: dict[str, int] = {}

    @property
    def phase(self) -> Phase:
        """How far the open switch has come."""
        if self.record.switch is None:
            return Phase.IDLE
        if self.record.switch.stage is Stage.COMMITTED:
            return Phase.COMMITTED
        return Phase.ABORTING if self._aborting else Phase.OFFERED

    @property
    def waiting_for(self) -> tuple[str, ...]:
        """Members that have yet to do what the phase waits for, in order."""
        if self.record.switch is None:
            return ()
        return tuple(worker for worker in self._members if worker not in self._done)

    @property
    def serving(self) -> tuple[Version | None, ...]:
        """By what each member that is here serves."""
        return tuple(session.in_force for session in self._present())

    # What happens to it.

    def started(self) -> list[Effect]:
        """The server has restarted: call this before all else."""
        return list(notes.newest(self.record))

    def joined(self, number: int, hello: Hello) -> list[Effect]:
        """A session began. Numbers of sessions never repeat."""
        refusal = self._why_refused(hello)
        if refusal is not None:
            return [Close(number, refusal, final=True)]
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
        session = self._sessions.numbered(number)
        if session is None:
            return []
        self._sessions.end(session)
        if is_member(self.record.epoch, session.hello):
            effects = self._abort_offer(
                Cause.LOST, f"the session of {session.hello.worker!r} was lost"
            )
        else:
            effects = []
        # A group may have waited for this worker of another one to be gone.
        return [*effects, *self._open_epoch()]

    def answered(self, number: int, answer: Answer) -> list[Effect]:
        """A worker answered. What nobody waits for is noted and has no effect."""
        session = self._sessions.numbered(number)
        if session is None:
            return [notes.ignored(answer, None)]
        worker, effects = session.hello.worker, None
        match answer:
            # Also of an older epoch, while this one has yet to open.
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
                effects = None if self._asked(answer, *Phase) is None else []
        return [notes.ignored(answer, worker)] if effects is None else effects

    def expired(self, version: Version) -> list[Effect]:
        """An offer was open for as long as it may be: see `Expire`."""
        if self.record.switch is None or self.record.switch.version != version:
            return []
        return self._abort_offer(
            Cause.LATE, f"not prepared in time by {', '.join(self.waiting_for)}"
        )

    def pause(self, reason: str) -> list[Effect]:
        """Offer nothing until `resume`; what is committed goes on."""
        self.record = replace(self.record, paused=reason)
        return [Save(self.record), *self._abort_offer(Cause.PAUSED, f"paused: {reason}")]

    def resume(self) -> list[Effect]:
        """Allow offers again."""
        self.record = replace(self.record, paused=None)
        return [Save(self.record)]

    def pin(self, placement: Placement | None) -> list[Effect]:
        """Stay at this placement, or at none: whoever runs it goes there."""
        self.record = replace(self.record, pinned=placement)
        return [Save(self.record)]

    def drain(self) -> list[Effect]:
        """Offer nothing any more: this server is about to end."""
        self._draining = True
        return self._abort_offer(Cause.DRAIN, "the server drains")

    def blocked_reason(self) -> str | None:
        """Why nothing can be offered now; None if it can."""
        record = self.record
        if self._draining:
            return "the server drains"
        if record.paused is not None:
            return f"the deployment is paused: {record.paused}"
        if record.epoch is None:
            return self._why_no_epoch() or "no group is complete yet"
        if record.switch is not None:
            waiting = ", ".join(self.waiting_for)
            return f"the switch to {record.switch.version} is {self.phase.value}, by {waiting} not"
        reasons = (self._why_not_ready(worker) for worker in self._members)
        reason = next((reason for reason in reasons if reason is not None), None)
        return reason and (self._why_no_epoch() or reason)

    def propose(self, placement: Placement) -> list[Effect]:
        """Offer a placement, of the same shape as the one in force.

        Raises:
            FailedPreconditionError: see `blocked_reason`.
        """
        reason = self.blocked_reason()
        if reason is not None:
            raise FailedPreconditionError(reason)
        base, base_placement = self.record.served
        version = Version(base.epoch, self.record.last_generation + 1)
        switch = Switch(version, placement, Stage.OFFERED)
        note = notes.offered(switch, self.record)
        self.record = replace(self.record, last_generation=version.generation, switch=switch)
        self._aborting = False
        self._done.clear()
        for session in self._present():
            session.held = version
        offer = Offer(version, base, base_placement, placement)
        sends = [Send(session.number, offer) for session in self._present()]
        return [Save(self.record), note, *sends, Expire(version)]

    # Epochs.

    def _why_refused(self, hello: Hello) -> str | None:
        refusal, newest = why_refused(self.record, hello), self._newest.get(hello.worker, (0, 0))
        if refusal is None and (hello.incarnation, hello.stream) < newest:
            return (
                f"incarnation: {hello.worker!r} has begun a newer session than stream "
                f"{hello.stream} of incarnation {hello.incarnation}"
            )
        return refusal

    def _remember(self, hello: Hello) -> None:
        """The newest last; of workers that have not been here for longest, nothing is kept."""
        self._newest.pop(hello.worker, None)
        self._newest[hello.worker] = hello.incarnation, hello.stream
        if len(self._newest) > _MOST_NEWEST:
            del self._newest[next(iter(self._newest))]

    def _open_epoch(self) -> list[Effect]:
        """Open an epoch if all sessions are of one new group, complete and of one mind."""
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
        old, (epoch, self.record) = self.record, next_record(self.record, hellos)
        version = Version(epoch.number, 0)
        return [
            Save(self.record),
            *notes.aborted(old.switch),
            notes.epoch_opened(epoch, self.record),
            *(effect for session in self._present() for effect in self._welcome(session, version)),
        ]

    def _why_no_epoch(self) -> str | None:
        """Why a new group that is here and complete has no epoch; None: there is no such."""
        epoch, hellos = self.record.epoch, [session.hello for session in self._sessions]
        if epoch is not None and all(hello.group_id == epoch.group_id for hello in hellos):
            return None
        return why_not_opened(hellos, self._num_gpus)

    def _wait_for_flip(self) -> list[Effect]:
        """A store that has been lost knew of a commit: what it leads to is not to be overtaken."""
        armed = [(each.number, armed_with(each.hello)) for each in self._sessions]
        why = "this server does not know of it: come back once it is in force"
        return [Close(number, f"{v} is armed, and {why}", final=False) for number, v in armed if v]

    def _welcome(self, session: Session, version: Version) -> list[Effect]:
        session.in_force = version
        return [Send(session.number, Welcome(version, session.hello.placement.digest))]

    def _resume(self, session: Session) -> list[Effect]:
        """A member is back: P8."""
        effects = self._outlived(session.hello)
        version, switch = self._version_of(session.hello), self.record.switch
        if version is None:
            return [*effects, *self._diverged(session.hello)]
        effects += self._welcome(session, version)
        if session.held is not None and (switch is None or session.held != switch.version):
            effects += [Send(session.number, Abort(session.held))]
        if switch is None:
            return effects
        holds = session.held == switch.version
        if self.phase is Phase.ABORTING:
            abort = Send(session.number, Abort(switch.version))
            return [*effects, *([abort] if holds else self._rid_of(switch, session))]
        if version == switch.version:
            return [*effects, *self._flipped(switch, session, session.hello.flipped_at)]
        if holds:
            return [*effects, *self._send_commit(switch, session)]
        worker = session.hello.worker
        return [*effects, *self._pause_for(f"{worker!r} has lost the committed {switch.version}")]

    def _version_of(self, hello: Hello) -> Version | None:
        """Which version of this epoch a member serves by; None for none that it could."""
        (in_force, placement), switch = self.record.served, self.record.switch
        digest, said = hello.placement.digest, hello.in_force
        if said is None or said.epoch < in_force.epoch:
            # It has not heard of its epoch yet, so it serves by what it began with.
            said = Version(in_force.epoch, 0)
        possible = {in_force: placement.digest}
        if switch is not None and switch.stage is Stage.COMMITTED:
            possible[switch.version] = switch.placement.digest
        return said if possible.get(said) == digest else None

    # The open switch.

    def _prepared(self, session: Session, answer: Prepared) -> list[Effect] | None:
        switch, hello = self._asked(answer, Phase.OFFERED), session.hello
        if switch is None or hello.worker in self._done:
            return None
        self._done.add(hello.worker)
        note = notes.prepared(answer, hello.worker, hello.incarnation)
        return [note] if self.waiting_for else [note, *self._commit(switch)]

    def _commit(self, switch: Switch) -> list[Effect]:
        switch = replace(switch, stage=Stage.COMMITTED)
        self.record = replace(self.record, switch=switch)
        self._done.clear()
        self._steps.clear()
        sends = (
            effect for session in self._present() for effect in self._send_commit(switch, session)
        )
        return [Save(self.record), notes.committed(switch), *sends]

    def _send_commit(self, switch: Switch, session: Session) -> list[Effect]:
        commit = Commit(switch.version, switch.placement.digest)
        note = notes.commit_sent(switch, session.hello.worker)
        return [note, Send(session.number, commit)]

    def _applied(self, session: Session, answer: Applied) -> list[Effect] | None:
        switch = self._asked(answer, Phase.COMMITTED)
        if switch is None:
            return self._flipped_to_another(session, answer)
        session.in_force, session.held = answer.version, None
        return self._flipped(switch, session, answer.step)

    def _flipped(self, switch: Switch, session: Session, step: int | None) -> list[Effect]:
        """A member has flipped; the last one ends the switch."""
        worker = session.hello.worker
        self._done.add(worker)
        if step is not None:
            self._steps[worker] = step
        if self.waiting_for:
            return []
        version, placement = switch.version, switch.placement
        past = self.record.followed_by(placement)
        self.record = replace(
            self.record, in_force=version, placement=placement, switch=None, past=past
        )
        effects: list[Effect] = [Save(self.record), notes.applied(switch)]
        if len(set(self._steps.values())) > 1:
            effects += self._pause_for(f"ranks flipped to {version} at steps {self._steps}")
        return effects

    def _flipped_to_another(self, session: Session, answer: Applied) -> list[Effect] | None:
        switch, worker = self.record.switch, session.hello.worker
        if self.phase is not Phase.COMMITTED or switch is None or answer.version != switch.version:
            return None
        said, asked = answer.digest.hex()[:12], switch.placement.digest.hex()[:12]
        reason = f"{worker!r} flipped to {said} as {switch.version}, not to {asked}"
        return self._pause_for(reason, mismatch=True)

    def _refused(self, session: Session, answer: Refused) -> list[Effect] | None:
        switch = self.record.switch
        if switch is None or answer.version != switch.version:
            return self._freed(session, answer)
        member = is_member(self.record.epoch, session.hello)
        if not member or self._asked(answer, Phase.OFFERED, Phase.ABORTING) is None:
            return None
        session.held = None
        abort = self._abort_offer(
            Cause.REFUSED, f"refused by {session.hello.worker!r}: {answer.reason}"
        )
        return [*abort, *self._rid_of(switch, session)]

    def _discarded(self, session: Session, answer: Discarded) -> list[Effect] | None:
        freed, switch = self._freed(session, answer), self.record.switch
        if switch is None or self.phase is not Phase.ABORTING or answer.version != switch.version:
            return freed
        return self._rid_of(switch, session)

    def _freed(self, session: Session, answer: Refused | Discarded) -> list[Effect] | None:
        """Nothing of a version is in staging any more; None if nothing was."""
        if session.held != answer.version:
            return None
        session.held = None
        return []

    def _abort_offer(self, cause: Cause, reason: str) -> list[Effect]:
        """Abort the open switch if it is only offered."""
        switch = self.record.switch
        if switch is None or self.phase is not Phase.OFFERED:
            return []
        self._aborting = True
        self._done.clear()
        holders = [session for session in self._present() if session.held == switch.version]
        sends = [Send(session.number, Abort(switch.version)) for session in holders]
        return [notes.aborting(switch, cause, reason), *sends]

    def _rid_of(self, switch: Switch, session: Session) -> list[Effect]:
        """A member holds nothing of an aborted version; the last one ends the switch."""
        self._done.add(session.hello.worker)
        if self.waiting_for:
            return []
        self.record = replace(self.record, switch=None)
        return [Save(self.record), *notes.aborted(switch)]

    def _asked(
        self, answer: Accepted | Prepared | Refused | Applied, *phases: Phase
    ) -> Switch | None:
        """The open switch, if it is in one of the phases and the answer is to it."""
        switch = self.record.switch
        if switch is None or self.phase not in phases:
            return None
        asked = answer.version == switch.version and answer.digest == switch.placement.digest
        return switch if asked else None

    # What is not as it should be.

    def _outlived(self, hello: Hello) -> list[Effect]:
        """A member knows of generations that the record does not: an old copy was put back."""
        record = self.record
        if hello.generation <= record.last_generation:
            return []
        self.record = replace(record, last_generation=hello.generation)
        return self._pause_for(
            f"{hello.worker!r} has heard of generation {hello.generation}, and the store ends at "
            f"{record.last_generation}: it is an old copy"
        )

    def _diverged(self, hello: Hello) -> list[Effect]:
        return self._pause_for(
            f"{hello.worker!r} serves by {hello.in_force}, digest "
            f"{hello.placement.digest.hex()[:12]}, which is neither {self.record.in_force} "
            "nor a committed version",
            mismatch=True,
        )

    def _pause_for(self, reason: str, *, mismatch: bool = False) -> list[Effect]:
        return [Alarm(reason, mismatch), *self.pause(reason)]

    def _why_not_ready(self, worker: str) -> str | None:
        session = self._sessions.of(worker)
        if session is None:
            return f"{worker!r} has no session"
        if session.in_force != self.record.in_force:
            return f"{worker!r} serves by {session.in_force}, not {self.record.in_force}"
        if session.held is not None:
            return f"{worker!r} still holds {session.held}"
        return None

    # Who is who.

    @property
    def _members(self) -> tuple[str, ...]:
        epoch = self.record.epoch
        return () if epoch is None else tuple(sorted(epoch.members))

    def _present(self) -> list[Session]:
        """The sessions of members, in order."""
        return [
            session for session in self._sessions if is_member(self.record.epoch, session.hello)
        ]
