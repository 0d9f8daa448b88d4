"""From one epoch to the next: whom a record lets in, and the record that follows it. P2."""

from __future__ import annotations

from trimtab_protocol.history import Member
from trimtab_protocol.messages import Hello
from trimtab_protocol.version import Version
from trimtab_server.rollout.groups import highest_known
from trimtab_server.rollout.record import Epoch, Record
from trimtab_server.rollout.sessions import is_member

MOST_LOST = 1 << 32
"""Of epochs, generations and terms: more than a store can have lost. A worker that names more
is wrong, and would use up the numbers that there are."""

_MOST_ENDED_GROUPS = 1000
"""Groups that are remembered after their epoch, so that they cannot come back."""


def why_refused(record: Record, hello: Hello) -> str | None:
    """Why a worker cannot join, whatever else it says; None if it can."""
    epoch, known = record.epoch, highest_known([hello])
    if hello.group_id in record.ended_groups:
        return (
            f"group_id: {hello.group_id!r} has been followed by another group; "
            "a group that forms again needs a new group_id"
        )
    if epoch and hello.group_id == epoch.group_id and not is_member(epoch, hello):
        return (
            f"group_id: {hello.group_id!r} serves already, and not with {hello.worker!r} in "
            f"incarnation {hello.incarnation} on GPUs {list(hello.gpus)}; "
            "a group that forms again needs a new group_id"
        )
    if known.epoch > MOST_LOST + (epoch.number if epoch else 0):
        return f"epoch: {known.epoch} is more than there can have been"
    if known.generation > MOST_LOST + record.last_generation:
        return f"generation: {known.generation} is more than there can have been"
    return None


def next_record(record: Record, hellos: list[Hello]) -> tuple[Epoch, Record]:
    """The epoch of a group that is complete and of one mind, and what is durable with it.

    Its numbers are above all that a worker knows of, which may be more than the store does.
    """
    old, known = record.epoch, highest_known(hellos)
    number = 1 + max(known.epoch, old.number if old else 0)
    generation = max(known.generation, record.last_generation)
    members = {hello.worker: Member(hello.incarnation, hello.gpus) for hello in hellos}
    epoch = Epoch(number, hellos[0].group_id, members, generation)
    ended = (*record.ended_groups, *([old.group_id] if old else []))
    return epoch, Record(
        epoch,
        Version(number, 0),
        hellos[0].placement,
        last_generation=generation,
        paused=record.paused,
        ended_groups=ended[-_MOST_ENDED_GROUPS:],
        pinned=record.pinned,
        past=record.followed_by(hellos[0].placement),
    )
