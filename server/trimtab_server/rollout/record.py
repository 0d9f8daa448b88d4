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


class Origin(Enum):
    """Why a placement came into force."""

    UNKNOWN = "unknown"
    STARTED = "started"
    DECIDED = "decided"
    TRIGGERED = "triggered"
    PINNED = "pinned"
    ROLLED_BACK = "rolled_back"


@dataclass(frozen=True)
class Switch:
    """An open switch: rule P4.

    Attributes:
        version: the version that it leads to.
        placement: the placement of that version.
        stage: its durable stage.
        origin: why the placement is to come into force.
        begins: whether a rollout begins with it. The placement that it replaces is then one to go
            back to.
    """

    version: Version
    placement: Placement
    stage: Stage
    origin: Origin = Origin.UNKNOWN
    begins: bool = True


class Served(NamedTuple):
    """A placement that is or was in force, and what is known of it; None if it is not known.

    Attributes:
        version: of the placement.
        origin: why it came into force.
        since: when it came into force, in seconds since 1970.
        until: when the rollout began that replaced it, in seconds since 1970.
        imbalance: predicted when it was replaced, smoothed; mean over layers.
    """

    version: Version
    placement: Placement
    origin: Origin = Origin.UNKNOWN
    since: float | None = None
    until: float | None = None
    imbalance: float | None = None


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
        past: placements to go back to, oldest first; see `points.py`.
        ended_groups: groups whose epochs have ended, oldest first.
        origin: why the placement is in force.
        since: when it came into force, in seconds since 1970; None if that is not known.
        pin_origin: why the pinned placement is pinned: PINNED or ROLLED_BACK.
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
    origin: Origin = Origin.UNKNOWN
    since: float | None = None
    pin_origin: Origin = Origin.PINNED

    @property
    def served(self) -> tuple[Version, Placement]:
        """The version in force and its placement. Raises LookupError before the first epoch."""
        if self.in_force is None or self.placement is None:
            raise LookupError("no epoch has been opened")
        return self.in_force, self.placement
