"""The lines of a deployment's history that the server writes: see PROTOCOL.md."""

from __future__ import annotations

from collections.abc import Iterator

from trimtab_server.domain.version import Version
from trimtab_server.rollout.effects import Cause, Note
from trimtab_server.rollout.messages import Answer, Prepared
from trimtab_server.rollout.record import Epoch, Record, Stage, Switch


def epoch_opened(epoch: Epoch, record: Record) -> Note:
    """A group is complete and serves."""
    _, placement = record.served
    return Note(
        "epoch",
        {
            "epoch": epoch.number,
            "group": epoch.group_id,
            "members": {
                worker: {"incarnation": member.incarnation, "gpus": list(member.gpus)}
                for worker, member in epoch.members.items()
            },
            "digest": placement.digest,
            "placement": placement,
        },
    )


def offered(switch: Switch, record: Record) -> Note:
    """A switch was opened."""
    base, _ = record.served
    return _of(switch, "offered", base=base, placement=switch.placement)


def prepared(answer: Prepared, worker: str, incarnation: int) -> Note:
    """A member has all in staging."""
    return Note("prepared", {**vars(answer), "worker": worker, "incarnation": incarnation})


def committed(switch: Switch) -> Note:
    """All members have: the switch will take place."""
    return _of(switch, "committed")


def commit_sent(switch: Switch, worker: str) -> Note:
    """A member is told so."""
    return Note("commit_sent", {"version": switch.version, "worker": worker})


def aborting(switch: Switch, cause: Cause, reason: str) -> Note:
    """The switch will not take place."""
    values = {"version": switch.version, "cause": cause.value, "reason": reason}
    return Note("aborting", values)


def aborted(switch: Switch | None) -> Iterator[Note]:
    """The switch is open no more, if it was never committed."""
    if switch is not None and switch.stage is Stage.OFFERED:
        yield Note("aborted", {"version": switch.version})


def applied(switch: Switch) -> Note:
    """All members have flipped."""
    return _of(switch, "applied")


def newest(record: Record) -> Iterator[Note]:
    """What the last save has made durable, again: the server may have died before noting it."""
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
        note = Note("aborted", {"version": Version(epoch.number, record.last_generation)})
    yield Note(note.kind, {**note.values, "again": True})


def ignored(answer: Answer, worker: str | None) -> Note:
    """An answer that nobody waits for."""
    values = {"answer": type(answer).__name__, "worker": worker, "version": answer.version}
    return Note("ignored", values)


def _of(switch: Switch, kind: str, **more: object) -> Note:
    digest = switch.placement.digest
    return Note(kind, {"version": switch.version, "digest": digest, **more})
