"""The events of a history, a class for each kind: see "Histories" in PROTOCOL.md.

`lines` writes them as JSON lines and reads them back.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from trimtab_protocol.placement import Placement
from trimtab_protocol.version import Version


class Process(NamedTuple):
    """One start of a worker's process."""

    worker: str
    incarnation: int

    def __str__(self) -> str:
        return f"{self.worker!r} (incarnation {self.incarnation})"


@dataclass(frozen=True)
class Member:
    """A worker of an epoch: the incarnation of its process, and its GPUs, ascending."""

    incarnation: int
    gpus: tuple[int, ...]


KINDS: dict[str, type[Event]] = {}
"""The classes of events by the names of their kinds, as lines have them."""


@dataclass(frozen=True, kw_only=True)
class Event:
    """Something that happened. A class of events names its kind.

    Attributes:
        line: its line in the history that it was read from, from 1; 0 if it was not read.
        deployment: the deployment that it happened to. Empty if it concerns the whole server, and
            in a history of one deployment without a name.
    """

    line: int = 0
    deployment: str = ""

    def __init_subclass__(cls, kind: str = "") -> None:
        if kind:
            KINDS[kind] = cls


@dataclass(frozen=True)
class Other(Event):
    """An event of a kind that says nothing about the invariants.

    Attributes:
        values: what JSON can hold, and versions and digests; empty if it was read.
    """

    kind: str
    values: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Again(Event):
    """What a server found durable when it started: news only if it died before it wrote it."""

    event: Event


@dataclass(frozen=True)
class Started(Event, kind="started"):
    """A server started."""

    term: int


@dataclass(frozen=True)
class Deleted(Event, kind="deleted"):
    """A deployment was deleted. Another that gets its name begins anew.

    Attributes:
        reason: who or what deleted it, for people; empty if its server did not write it yet.
    """

    reason: str = ""


@dataclass(frozen=True)
class EpochOpened(Event, kind="epoch"):
    """An epoch is durable."""

    epoch: int
    group: str
    members: Mapping[str, Member]
    digest: bytes
    placement: Placement | None

    @property
    def version(self) -> Version:
        """What the group serves by as the epoch opens."""
        return Version(self.epoch, 0)

    @property
    def processes(self) -> tuple[Process, ...]:
        """The members, each in the one incarnation that belongs to the epoch."""
        return tuple(Process(name, member.incarnation) for name, member in self.members.items())


@dataclass(frozen=True)
class Offered(Event, kind="offered"):
    """An offer is durable. The placement is unchecked: I8 is what checks it."""

    version: Version
    base: Version
    digest: bytes
    placement: Placement | None


@dataclass(frozen=True)
class Prepared(Event, kind="prepared"):
    """The server heard that a worker has all of a version in staging."""

    version: Version
    digest: bytes
    process: Process


@dataclass(frozen=True)
class Committed(Event, kind="committed"):
    """A commit is durable."""

    version: Version
    digest: bytes


@dataclass(frozen=True)
class CommitSent(Event, kind="commit_sent"):
    """The server told a worker of a commit."""

    version: Version
    worker: str


@dataclass(frozen=True)
class Aborting(Event, kind="aborting"):
    """The server began to abort. `cause` is one of a few words; `reason` is for people."""

    version: Version
    cause: str
    reason: str


@dataclass(frozen=True)
class Aborted(Event, kind="aborted"):
    """An abort is durable."""

    version: Version


@dataclass(frozen=True)
class Applied(Event, kind="applied"):
    """It is durable that all members have flipped."""

    version: Version
    digest: bytes


@dataclass(frozen=True)
class Reported(Event, kind="report"):
    """The server took a worker's counts. All are sums over layers and experts, in tokens."""

    process: Process
    seq: int
    difference: int
    gap: int
    counts: int


@dataclass(frozen=True)
class Restored(Event, kind="restored"):
    """A restarted server goes on from these counts of a worker, in tokens."""

    process: Process
    counts: int


@dataclass(frozen=True)
class InForce(Event, kind="in_force"):
    """A worker serves in a new epoch."""

    process: Process
    group: str
    version: Version
    digest: bytes


@dataclass(frozen=True)
class Flipped(Event, kind="flipped"):
    """A worker flipped before this step."""

    process: Process
    version: Version
    digest: bytes
    step: int
