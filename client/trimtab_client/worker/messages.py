"""What a worker and the server tell each other about a switch."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

from trimtab_client.placement import Placement
from trimtab_client.version import Version as Version


class HeldState(Enum):
    """How far a worker has come with a version: rule P5."""

    ACCEPTED = "accepted"
    PREPARED = "prepared"
    ARMED = "armed"
    DISCARDING = "discarding"


class Held(NamedTuple):
    """A version that a worker has accepted, and neither flipped to nor discarded yet."""

    version: Version
    state: HeldState


@dataclass(frozen=True)
class Hello:
    """The first message of a session.

    Attributes:
        group_id: the worker's group.
        worker: its name, the same in each incarnation.
        incarnation: rises with each start of its process.
        stream: rises with each session of an incarnation.
        gpus: the GPUs that it owns.
        placement: what it serves by.
        in_force: the version of that; None before its first epoch.
        held: what it has accepted beyond that.
        flipped_at: the step before which it flipped to `in_force`; None for generation 0.
        term: the highest that it has heard from a server.
        epoch: the highest that it has served in.
        generation: the highest that it has heard of, in whichever epoch.
    """

    group_id: str
    worker: str
    incarnation: int
    stream: int
    gpus: tuple[int, ...]
    placement: Placement
    in_force: Version | None
    held: Held | None
    flipped_at: int | None
    term: int
    epoch: int
    generation: int


@dataclass(frozen=True)
class Accepted:
    """The worker has begun to prepare a version."""

    version: Version
    digest: bytes


@dataclass(frozen=True)
class Prepared:
    """The worker has all of a version in staging."""

    version: Version
    digest: bytes


@dataclass(frozen=True)
class Refused:
    """The worker will not prepare a version, or failed to; nothing of it is in staging."""

    version: Version
    digest: bytes
    reason: str


@dataclass(frozen=True)
class Discarded:
    """The worker holds nothing of a version."""

    version: Version


@dataclass(frozen=True)
class Applied:
    """The worker has flipped to a version before a step."""

    version: Version
    digest: bytes
    step: int


Answer = Accepted | Prepared | Refused | Discarded | Applied


@dataclass(frozen=True)
class Welcome:
    """The worker's epoch, and the version of what it serves by."""

    version: Version
    digest: bytes


@dataclass(frozen=True)
class Offer:
    """Prepare this placement, if the base is what you serve by."""

    version: Version
    base: Version
    base_digest: bytes
    placement: Placement


@dataclass(frozen=True)
class Commit:
    """Flip to this version, when all ranks can."""

    version: Version
    digest: bytes


@dataclass(frozen=True)
class Abort:
    """Discard this version."""

    version: Version


Order = Welcome | Offer | Commit | Abort
