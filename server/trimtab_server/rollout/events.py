"""Builds the events that a rollout writes to the history (PROTOCOL.md)."""

from __future__ import annotations

from collections.abc import Iterator

from trimtab_protocol import history
from trimtab_protocol.messages import Answer, Prepared
from trimtab_protocol.version import Version
from trimtab_server.rollout.effects import Cause, Note
from trimtab_server.rollout.record import Epoch, Record, Stage, Switch


def epoch_opened(epoch: Epoch, record: Record) -> Note:
    """A group is complete, and its epoch was opened."""
    _, placement = record.served
    return Note(
        history.EpochOpened(
            epoch.number, epoch.group_id, epoch.members, placement.digest, placement
        )
    )


def offered(switch: Switch, record: Record) -> Note:
    """A switch was opened."""
    base, _ = record.served
    placement = switch.placement
    return Note(history.Offered(switch.version, base, placement.digest, placement))


def prepared(answer: Prepared, worker: str, incarnation: int) -> Note:
    """A member has all weights in staging."""
    process = history.Process(worker, incarnation)
    return Note(history.Prepared(answer.version, answer.digest, process))


def committed(switch: Switch) -> Note:
    """All members are prepared: the switch will take place."""
    return Note(history.Committed(switch.version, switch.placement.digest))


def commit_sent(switch: Switch, worker: str) -> Note:
    """The commit is sent to a member."""
    return Note(history.CommitSent(switch.version, worker))


def aborting(switch: Switch, cause: Cause, reason: str) -> Note:
    """The switch will not take place."""
    return Note(history.Aborting(switch.version, cause.value, reason))


def aborted(switch: Switch | None) -> Iterator[Note]:
    """A switch that was never committed has ended. Nothing is yielded for any other."""
    if switch is not None and switch.stage is Stage.OFFERED:
        yield Note(history.Aborted(switch.version))


def applied(switch: Switch) -> Note:
    """All members have flipped."""
    return Note(history.Applied(switch.version, switch.placement.digest))


def newest(record: Record) -> Iterator[Note]:
    """Repeat the event of the last save: the server may have died before it wrote the event."""
    epoch, switch = record.epoch, record.switch
    if epoch is None:
        return
    version, placement = record.served
    if switch is not None:
        note = committed(switch) if switch.stage is Stage.COMMITTED else offered(switch, record)
    elif record.last_generation == epoch.generation:
        note = epoch_opened(epoch, record)
    elif record.last_generation == version.generation:
        note = applied(Switch(version, placement, Stage.COMMITTED))
    else:
        note = Note(history.Aborted(Version(epoch.number, record.last_generation)))
    yield Note(history.Again(note.event))


def ignored(answer: Answer, worker: str | None) -> Note:
    """A worker sent an answer that the rollout does not wait for."""
    values = {"answer": type(answer).__name__, "worker": worker, "version": answer.version}
    return Note(history.Other("ignored", values))
