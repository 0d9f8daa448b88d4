"""The durable state of a deployment. It is saved before any message that depends on it is sent."""

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
    """One group, with fixed members: rule P2.

    Attributes:
        number: of the epoch; the first epoch of a deployment is 1.
        group_id: the engine's name of the group.
        members: by the names of the workers; together they own each GPU once.
        generation: the highest generation used before the epoch was opened.
    """

    number: int
    group_id: str
    members: Mapping[str, Member]
    generation: int = 0


class Stage(Enum):
    """The durable stage of an open switch. A server that restarts aborts an OFFERED switch."""

    OFFERED = "offered"
    COMMITTED = "committed"


@dataclass(frozen=True)
class Switch:
    """An open switch: rule P4.

    Attributes:
        version: the version that it leads to.
        placement: the placement of that version.
        stage: its durable stage.
    """

    version: Version
    placement: Placement
    stage: Stage


class Served(NamedTuple):
    """A placement that is or was in force, and its version."""

    version: Version
    placement: Placement


_MAX_PAST = 16
"""Number of earlier placements that an operator can go back to."""


@dataclass(frozen=True)
class Record:
    """The durable state of a deployment.

    Attributes:
        epoch: the newest epoch; None before the first.
        in_force: the version applied last; None before the first epoch.
        placement: the placement of that version.
        last_generation: the highest generation used in any epoch. The engine's barrier
            distinguishes versions by their generations alone, so none is used twice.
        switch: the open switch; None if no switch is open.
        paused: the reason why nothing is offered; None if offers are allowed.
        pinned: the placement that an operator has pinned; None if the policy decides.
        past: earlier placements, oldest first, each once. A placement has its newest version, or
            generation 0 if the group started with it, which is always kept.
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
        """The version in force and its placement. Raises LookupError before the first epoch."""
        if self.in_force is None or self.placement is None:
            raise LookupError("no epoch has been opened")
        return self.in_force, self.placement

    def followed_by(self, placement: Placement) -> tuple[Served, ...]:
        """`past` after `placement` has come into force. It does not change if that is the same."""
        if self.in_force is None or self.placement is None:
            return self.past
        if self.placement.digest == placement.digest:
            return self.past
        digest, initial = self.placement.digest, Version(self.in_force.epoch, 0)
        known = [served for served in self.past if served.placement.digest == digest]
        if any(served.version == initial for served in known):
            return self.past
        others = (served for served in self.past if served not in known)
        past = (*others, Served(self.in_force, self.placement))
        if len(past) <= _MAX_PAST:
            return past
        oldest = next(served for served in past if served.version != initial)
        return tuple(served for served in past if served is not oldest)
