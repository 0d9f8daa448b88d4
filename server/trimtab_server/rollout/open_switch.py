"""A deployment's open switch, from its offer to its end: rules P3, P4 and P7 of PROTOCOL.md.

This is the base class of the state machine in `rollout.py`. It has no clock, socket or disk.
"""

from __future__ import annotations

from dataclasses import replace
from enum import Enum

from trimtab_protocol.messages import Abort, Accepted, Applied, Commit, Discarded, Prepared, Refused
from trimtab_protocol.placement import Placement
from trimtab_protocol.version import Version
from trimtab_server.rollout import events
from trimtab_server.rollout.effects import Alarm, Cause, Effect, Expire, GroupOffer, Save, Send
from trimtab_server.rollout.points import Present, remembered
from trimtab_server.rollout.record import Origin, Record, Stage, Switch
from trimtab_server.rollout.sessions import Session, Sessions, is_member


class Phase(Enum):
    """Phase of the open switch: P4. IDLE if no switch is open."""

    IDLE = "idle"
    OFFERED = "offered"
    ABORTING = "aborting"
    COMMITTED = "committed"


class OpenSwitch:
    """The switch of a deployment. At most one is open at a time.

    Methods that take an answer return None if the server does not wait for that answer.

    Attributes:
        record: the durable state, as of the last `Save` that was returned.
        present: what placements are remembered with, kept up to date by the caller.
    """

    def __init__(self, record: Record) -> None:
        self.record = record
        self.present = Present()
        self._sessions = Sessions()
        # Without a durable commit, a restarted server presumes that the offer was aborted (P8).
        self._aborting = record.switch is not None and record.switch.stage is Stage.OFFERED
        # Members that have done what the phase waits for, and the steps that they flipped at.
        self._done: set[str] = set()
        self._steps: dict[str, int] = {}

    @property
    def phase(self) -> Phase:
        """The phase of the open switch."""
        if self.record.switch is None:
            return Phase.IDLE
        if self.record.switch.stage is Stage.COMMITTED:
            return Phase.COMMITTED
        return Phase.ABORTING if self._aborting else Phase.OFFERED

    @property
    def waiting_for(self) -> tuple[str, ...]:
        """Members that have not yet done what the phase waits for, in order."""
        if self.record.switch is None:
            return ()
        return tuple(worker for worker in self._members if worker not in self._done)

    def pause(self, reason: str) -> list[Effect]:
        """Offer nothing until `resume`. A committed switch goes on."""
        self.record = replace(self.record, paused=reason)
        return [Save(self.record), *self._abort_offer(Cause.PAUSED, f"paused: {reason}")]

    def _pause_for(self, reason: str, *, mismatch: bool = False) -> list[Effect]:
        return [Alarm(reason, mismatch), *self.pause(reason)]

    # Offer and commit.

    def _offer(self, placement: Placement, origin: Origin, *, begins: bool) -> list[Effect]:
        base, base_placement = self.record.served
        version = Version(base.epoch, self.record.last_generation + 1)
        switch = Switch(version, placement, Stage.OFFERED, origin, begins)
        note = events.offered(switch, self.record)
        self.record = replace(self.record, last_generation=version.generation, switch=switch)
        self._aborting = False
        self._done.clear()
        for session in self._present():
            session.held = version
        offer = GroupOffer(version, base, base_placement, placement)
        sends = [Send(session.number, offer) for session in self._present()]
        return [Save(self.record), note, *sends, Expire(version)]

    def _prepared(self, session: Session, answer: Prepared) -> list[Effect] | None:
        switch, hello = self._switch_of(answer, Phase.OFFERED), session.hello
        if switch is None or hello.worker in self._done:
            return None
        self._done.add(hello.worker)
        note = events.prepared(answer, hello.worker, hello.incarnation)
        return [note] if self.waiting_for else [note, *self._commit(switch)]

    def _commit(self, switch: Switch) -> list[Effect]:
        switch = replace(switch, stage=Stage.COMMITTED)
        self.record = replace(self.record, switch=switch)
        self._done.clear()
        self._steps.clear()
        sends = (
            effect for session in self._present() for effect in self._send_commit(switch, session)
        )
        return [Save(self.record), events.committed(switch), *sends]

    def _send_commit(self, switch: Switch, session: Session) -> list[Effect]:
        commit = Commit(switch.version, switch.placement.digest)
        note = events.commit_sent(switch, session.hello.worker)
        return [note, Send(session.number, commit)]

    # Flip.

    def _applied(self, session: Session, answer: Applied) -> list[Effect] | None:
        switch = self._switch_of(answer, Phase.COMMITTED)
        if switch is None:
            return self._flipped_to_another(session, answer)
        session.in_force, session.held = answer.version, None
        return self._flipped(switch, session, answer.step)

    def _flipped(self, switch: Switch, session: Session, step: int | None) -> list[Effect]:
        """A member has flipped. The last one ends the switch."""
        worker = session.hello.worker
        self._done.add(worker)
        if step is not None:
            self._steps[worker] = step
        if self.waiting_for:
            return []
        version = switch.version
        left = remembered(self.record, self.present) if switch.begins else self.record
        self.record = replace(
            left,
            in_force=version,
            placement=switch.placement,
            switch=None,
            origin=switch.origin,
            since=self.present.time,
        )
        effects: list[Effect] = [Save(self.record), events.applied(switch)]
        if len(set(self._steps.values())) > 1:
            effects += self._pause_for(f"ranks flipped to {version} at steps {self._steps}")
        return effects

    def _flipped_to_another(self, session: Session, answer: Applied) -> list[Effect] | None:
        """A member has flipped to another placement than that of the switch."""
        switch, worker = self.record.switch, session.hello.worker
        if self.phase is not Phase.COMMITTED or switch is None or answer.version != switch.version:
            return None
        actual, expected = answer.digest.hex()[:12], switch.placement.digest.hex()[:12]
        reason = f"{worker!r} flipped to {actual} as {switch.version}, not to {expected}"
        return self._pause_for(reason, mismatch=True)

    # Abort.

    def _abort_offer(self, cause: Cause, reason: str) -> list[Effect]:
        """Abort the open switch, unless it is committed or being aborted."""
        switch = self.record.switch
        if switch is None or self.phase is not Phase.OFFERED:
            return []
        self._aborting = True
        self._done.clear()
        holders = [session for session in self._present() if session.held == switch.version]
        sends = [Send(session.number, Abort(switch.version)) for session in holders]
        return [events.aborting(switch, cause, reason), *sends]

    def _refused(self, session: Session, answer: Refused) -> list[Effect] | None:
        switch = self.record.switch
        if switch is None or answer.version != switch.version:
            return self._staging_freed(session, answer)
        member = is_member(self.record.epoch, session.hello)
        if not member or self._switch_of(answer, Phase.OFFERED, Phase.ABORTING) is None:
            return None
        session.held = None
        abort = self._abort_offer(
            Cause.REFUSED, f"refused by {session.hello.worker!r}: {answer.reason}"
        )
        return [*abort, *self._aborted_by(switch, session)]

    def _discarded(self, session: Session, answer: Discarded) -> list[Effect] | None:
        freed, switch = self._staging_freed(session, answer), self.record.switch
        if switch is None or self.phase is not Phase.ABORTING or answer.version != switch.version:
            return freed
        return self._aborted_by(switch, session)

    def _staging_freed(self, session: Session, answer: Refused | Discarded) -> list[Effect] | None:
        """A worker no longer holds a version in staging; None if it did not hold it."""
        if session.held != answer.version:
            return None
        session.held = None
        return []

    def _aborted_by(self, switch: Switch, session: Session) -> list[Effect]:
        """A member no longer holds the aborted version. The last one ends the switch."""
        self._done.add(session.hello.worker)
        if self.waiting_for:
            return []
        self.record = replace(self.record, switch=None)
        return [Save(self.record), *events.aborted(switch)]

    # Members, and the switch that an answer is about.

    def _switch_of(
        self, answer: Accepted | Prepared | Refused | Applied, *phases: Phase
    ) -> Switch | None:
        """The open switch, if it is in one of the phases and the answer is about it."""
        switch = self.record.switch
        if switch is None or self.phase not in phases:
            return None
        about = answer.version == switch.version and answer.digest == switch.placement.digest
        return switch if about else None

    @property
    def _members(self) -> tuple[str, ...]:
        epoch = self.record.epoch
        return () if epoch is None else tuple(sorted(epoch.members))

    def _present(self) -> list[Session]:
        """The sessions of members, sorted by worker."""
        return [
            session for session in self._sessions if is_member(self.record.epoch, session.hello)
        ]
