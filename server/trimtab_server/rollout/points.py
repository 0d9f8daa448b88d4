"""The placements that an operator can go back to: those that were in force when a rollout began.

What a rollout passes through on its way is none of them. They become fewer the older they are: the
last minutes, hours and days all have some.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from trimtab_protocol.version import Version
from trimtab_server.rollout.record import Record, Served

MAX_POINTS = 16
"""By default."""


@dataclass(frozen=True)
class Present:
    """What a placement is remembered with.

    Attributes:
        time: now, in seconds since 1970; None if it is not known.
        imbalance: predicted for the placement in force, smoothed, mean over layers; None if it is
            not known.
        max_points: maximum number of placements that are remembered.
    """

    time: float | None = None
    imbalance: float | None = None
    max_points: int = MAX_POINTS


def remembered(record: Record, present: Present) -> Record:
    """The record of a deployment that is about to leave its placement.

    A placement is remembered once: as of the last time that it was left, or as generation 0 if the
    group started with it. That one is always kept.
    """
    if record.in_force is None or record.placement is None:
        return record
    left = Served(
        record.in_force,
        record.placement,
        record.origin,
        record.since,
        present.time,
        present.imbalance,
    )
    first = Version(record.in_force.epoch, 0)
    known = [each for each in record.past if each.placement.digest == left.placement.digest]
    if any(each.version == first for each in known):
        left = left._replace(version=first)
    others = (each for each in record.past if each not in known)
    points = (*others, left)
    while len(points) > present.max_points:
        points = _thinned(points, first)
    return replace(record, past=points)


def _thinned(points: tuple[Served, ...], first: Version) -> tuple[Served, ...]:
    """The points without the one that is missed least: whose neighbours are close, for its age.

    The newest is kept, and so is the one whose version is `first`. Points whose time is not known
    are the oldest.
    """
    newest = points[-1]
    candidates = [index for index, each in enumerate(points[:-1]) if each.version != first]
    if not candidates:
        return points[1:]
    now = newest.until or 0.0

    def distance(index: int) -> float:
        before = points[index - 1].until if index else None
        at, after = points[index].until, points[index + 1].until
        if at is None or after is None:
            return -1.0
        # The oldest has no neighbour before it. It is as far away as it is old.
        start = at - (now - at) if before is None else before
        return (after - start) / max(now - at, 1e-3)

    dropped = min(candidates, key=distance)
    return (*points[:dropped], *points[dropped + 1 :])
