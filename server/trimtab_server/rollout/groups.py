"""Which workers form a complete group: rule P2."""

from __future__ import annotations

from collections.abc import Iterable

from trimtab_protocol.messages import HeldState, Hello
from trimtab_protocol.version import Version


def owned_twice(hellos: Iterable[Hello]) -> str | None:
    """The first GPU that two workers of a group own, as text; None if there is no such GPU."""
    owner: dict[int, str] = {}
    for hello in hellos:
        for gpu in hello.gpus:
            if gpu in owner:
                return f"GPU {gpu} is owned by {owner[gpu]!r} and {hello.worker!r}"
            owner[gpu] = hello.worker
    return None


def covers(hellos: Iterable[Hello], num_gpus: int) -> bool:
    """Whether the workers together own every GPU."""
    return {gpu for hello in hellos for gpu in hello.gpus} == set(range(num_gpus))


def differing_digests(hellos: Iterable[Hello]) -> str | None:
    """The workers of each placement, as text; None if all serve with the same placement."""
    workers: dict[bytes, list[str]] = {}
    for hello in hellos:
        workers.setdefault(hello.placement.digest, []).append(hello.worker)
    if len(workers) < 2:
        return None
    sides = (f"{digest.hex()[:12]}: {', '.join(names)}" for digest, names in workers.items())
    return f"placements in force differ ({'; '.join(sides)})"


def epoch_blocked_reason(hellos: Iterable[Hello], num_gpus: int) -> str | None:
    """Why a complete group has no epoch yet; None if no group is complete or nothing blocks it."""
    groups: dict[str, list[Hello]] = {}
    for hello in hellos:
        groups.setdefault(hello.group_id, []).append(hello)
    complete = next((each for each in groups if covers(groups[each], num_gpus)), None)
    if complete is None:
        return None
    others = [hello.worker for each in groups if each != complete for hello in groups[each]]
    if others:
        return (
            f"group {complete!r} waits for these sessions of other groups to end: "
            f"{', '.join(others)}"
        )
    return differing_digests(groups[complete])


def highest_known(hellos: Iterable[Hello]) -> Version:
    """The highest epoch and the highest generation that the workers know; 0 if none."""
    known = [Version(hello.epoch, hello.generation) for hello in hellos]
    known += [hello.in_force for hello in hellos if hello.in_force is not None]
    return Version(max(each.epoch for each in known), max(each.generation for each in known))


def armed_with(hello: Hello) -> Version | None:
    """The version that a worker has armed; None if there is none. It flips once all have."""
    held = hello.held
    return held.version if held is not None and held.state is HeldState.ARMED else None


def may_flip(hellos: Iterable[Hello]) -> bool:
    """Whether workers may flip without another message from the server.

    A worker that has neither armed a version nor flipped to it holds back all others.
    """
    hellos = list(hellos)
    armed = {armed_with(hello) for hello in hellos} - {None}
    return bool(armed) and all(armed_with(hello) or hello.in_force in armed for hello in hellos)
