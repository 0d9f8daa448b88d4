"""Which workers form a complete group: P2."""

from __future__ import annotations

from collections.abc import Iterable

from trimtab_server.rollout.messages import Hello


def owned_twice(hellos: Iterable[Hello]) -> str | None:
    """Names the first GPU that two workers of a group own; None if there is none."""
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
    """Says which workers serve by which placement, if not all by the same."""
    workers: dict[bytes, list[str]] = {}
    for hello in hellos:
        workers.setdefault(hello.placement.digest, []).append(hello.worker)
    if len(workers) < 2:
        return None
    sides = (f"{digest.hex()[:12]}: {', '.join(names)}" for digest, names in workers.items())
    return f"placements in force differ ({'; '.join(sides)})"
