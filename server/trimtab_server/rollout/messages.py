"""What workers and server tell each other about a switch, without the contents of an offer.

The wire has the same messages; `rpc` converts them, and fills in for each worker what an
offer asks of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from trimtab_server.domain.placement import Placement
from trimtab_server.domain.version import Version


class HeldState(Enum):
    """How far a worker has come with the version that it holds: P5."""

    ACCEPTED = "accepted"
    PREPARED = "prepared"
    ARMED = "armed"
    DISCARDING = "discarding"


@dataclass(frozen=True)
class Held:
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
        in_force: the version of that; None before its first epoch, and after a restart.
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
    in_force: Version | None = None
    held: Held | None = None
    flipped_at: int | None = None
    term: int = 0
    epoch: int = 0
    generation: int = 0


@dataclass(frozen=True)
class Prepared:
    """The worker has all of a version in staging."""

    version: Version
    digest: bytes


@dataclass(frozen=True)
class Accepted:
    """The worker has begun to prepare a version."""

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
    """The worker holds nothing of an aborted version."""

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
    """Prepare this version, if the base is what you serve by."""

    version: Version
    base: Version
    base_placement: Placement
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
