"""What outlives the server's process: durable before anything that follows from it is sent."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import NamedTuple

from trimtab_protocol.history import Member
from trimtab_protocol.placement import Placement
from trimtab_protocol.version import Version


@dataclass(frozen=True)
class Epoch:
    """One group, with fixed members: P2.

    Attributes:
        number: from 1; each epoch of a deployment has the next.
        group_id: the engine's name of the group.
        members: by the workers' names; together they own each GPU once.
        generation: the highest that had been given out when it opened.
    """

    number: int
    group_id: str
    members: Mapping[str, Member]
    generation: int = 0


class Stage(Enum):
    """How far an open switch has come, durably. Restarted from OFFERED, it is aborted."""

    OFFERED = "offered"
    COMMITTED = "committed"


@dataclass(frozen=True)
class Switch:
    """An open switch: P4.

    Attributes:
        version: that it leads to.
        placement: the same.
        stage: how far it has come.
    """

    version: Version
    placement: Placement
    stage: Stage


class Served(NamedTuple):
    """A placement that was in force, and as which version."""

    version: Version
    placement: Placement


_MOST_PAST = 16
"""Placements that an operator can go back to."""


@dataclass(frozen=True)
class Record:
    """All of a deployment that is durable.

    Attributes:
        epoch: the newest; None before the first.
        in_force: the version applied last; None before the first epoch.
        placement: that version's.
        last_generation: the highest ever given out, in whichever epoch: the engine's barrier
            tells one version from another by that alone.
        switch: the open one.
        paused: why nothing is offered; None if that is allowed.
        pinned: where it is to stay, whatever its loads; None: wherever they ask for.
        past: what was in force before, the oldest first, each placement once: as its newest
            version, or as generation 0, what the group came with, which is always kept.
        ended_groups: groups whose epochs have ended, oldest first.
    """

    epoch: Epoch | None = None
    in_force: Version | None = None
    placement: Placement | None = None
    last_generation: int = 0
    switch: Switch | None = None
    paused: str | None = None
    ended_groups: tuple[str, ...] = field(default=())
    pinned: Placement | None = None
    past: tuple[Served, ...] = ()

    @property
    def served(self) -> tuple[Version, Placement]:
        """The version in force, and its placement. There is one where there is an epoch."""
        if self.in_force is None or self.placement is None:
            raise LookupError("no epoch has been opened")
        return self.in_force, self.placement

    def followed_by(self, placement: Placement) -> tuple[Served, ...]:
        """`past`, once this one is in force: the same that goes on has no past of its own."""
        if self.in_force is None or self.placement is None:
            return self.past
        if self.placement.digest == placement.digest:
            return self.past
        digest, came_with = self.placement.digest, Version(self.in_force.epoch, 0)
        known = [served for served in self.past if served.placement.digest == digest]
        if any(served.version == came_with for served in known):
            return self.past
        others = (served for served in self.past if served not in known)
        past = (*others, Served(self.in_force, self.placement))
        if len(past) <= _MOST_PAST:
            return past
        oldest = next(served for served in past if served.version != came_with)
        return tuple(served for served in past if served is not oldest)
