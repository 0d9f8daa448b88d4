"""Which workers may join a deployment, and the record of its next epoch: rule P2."""

from __future__ import annotations

from trimtab_protocol.history import Member
from trimtab_protocol.messages import Hello
from trimtab_protocol.version import Version
from trimtab_server.rollout.groups import highest_known
from trimtab_server.rollout.points import Present, remembered
from trimtab_server.rollout.record import Epoch, Origin, Record
from trimtab_server.rollout.sessions import is_member

MAX_LOST = 1 << 32
"""Maximum number of epochs, generations or terms that a store can have lost. A worker that names a
higher number is wrong, and accepting it would use up the numbers."""

_MAX_ENDED_GROUPS = 1000
"""Number of ended groups that are remembered, so that they cannot join again."""


def refusal_reason(record: Record, hello: Hello) -> str | None:
    """Why a worker cannot join, by the record; None if it can."""
    epoch, known = record.epoch, highest_known([hello])
    if hello.group_id in record.ended_groups:
        return (
            f"group_id: another group has replaced {hello.group_id!r}; "
            "a group that forms again needs a new group_id"
        )
    if epoch and hello.group_id == epoch.group_id and not is_member(epoch, hello):
        return (
            f"group_id: {hello.group_id!r} serves already, but {hello.worker!r} in "
            f"incarnation {hello.incarnation} on GPUs {list(hello.gpus)} is not a member; "
            "a group that forms again needs a new group_id"
        )
    if known.epoch > MAX_LOST + (epoch.number if epoch else 0):
        return f"epoch: {known.epoch} is higher than this deployment can have reached"
    if known.generation > MAX_LOST + record.last_generation:
        return f"generation: {known.generation} is higher than this deployment can have reached"
    return None


def next_record(record: Record, hellos: list[Hello], present: Present) -> tuple[Epoch, Record]:
    """The epoch of a complete group whose workers have the same placement, and its record.

    Its numbers are above every number that a worker knows, since the store may have lost some.
    """
    old, known = record.epoch, highest_known(hellos)
    number = 1 + max(known.epoch, old.number if old else 0)
    generation = max(known.generation, record.last_generation)
    members = {hello.worker: Member(hello.incarnation, hello.gpus) for hello in hellos}
    epoch = Epoch(number, hellos[0].group_id, members, generation)
    ended = (*record.ended_groups, *([old.group_id] if old else []))
    placement = hellos[0].placement
    if record.placement is not None and record.placement.digest != placement.digest:
        record = remembered(record, present)
    return epoch, Record(
        epoch,
        Version(number, 0),
        placement,
        last_generation=generation,
        paused=record.paused,
        ended_groups=ended[-_MAX_ENDED_GROUPS:],
        pinned=record.pinned,
        past=record.past,
        origin=Origin.STARTED,
        since=present.time,
        pin_origin=record.pin_origin,
    )
