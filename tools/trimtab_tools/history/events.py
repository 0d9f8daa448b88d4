"""The events of a history, a class for each kind: see "Histories" in PROTOCOL.md."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from trimtab_client.placement import Placement
from trimtab_client.worker.messages import Version


class Process(NamedTuple):
    """A worker's process: one start of it."""

    worker: str
    incarnation: int

    def __str__(self) -> str:
        return f"{self.worker!r} (incarnation {self.incarnation})"


class Member(NamedTuple):
    """A worker of an epoch, and the GPUs that it owns."""

    incarnation: int
    gpus: tuple[int, ...]


@dataclass(frozen=True)
class Event:
    """Something that happened.

    Attributes:
        line: where it stands in the history, from 1.
        deployment: where it happened; empty in a history of one deployment without a name.
    """

    line: int
    deployment: str


@dataclass(frozen=True)
class Other(Event):
    """Of a kind that says nothing about the invariants, or is misspelt."""

    kind: str


@dataclass(frozen=True)
class Again(Event):
    """What a server found durable when it started: news only if it died before noting it."""

    event: Event


@dataclass(frozen=True)
class Started(Event):
    """A server started."""

    term: int


@dataclass(frozen=True)
class EpochOpened(Event):
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
class Offered(Event):
    """An offer is durable. The placement is unchecked: I8 is what checks it."""

    version: Version
    base: Version
    digest: bytes
    placement: Placement | None


@dataclass(frozen=True)
class Prepared(Event):
    """The server heard that a worker has all of a version in staging."""

    version: Version
    digest: bytes
    process: Process


@dataclass(frozen=True)
class Committed(Event):
    """A commit is durable."""

    version: Version
    digest: bytes


@dataclass(frozen=True)
class CommitSent(Event):
    """The server told a worker of a commit."""

    version: Version
    worker: str


@dataclass(frozen=True)
class Aborting(Event):
    """The server began to abort."""

    version: Version
    reason: str


@dataclass(frozen=True)
class Aborted(Event):
    """An abort is durable."""

    version: Version


@dataclass(frozen=True)
class Applied(Event):
    """It is durable that all members have flipped."""

    version: Version
    digest: bytes


@dataclass(frozen=True)
class Reported(Event):
    """The server took a worker's counts. All are sums over layers and experts, in tokens."""

    process: Process
    seq: int
    difference: int
    gap: int
    counts: int


@dataclass(frozen=True)
class Restored(Event):
    """A restarted server goes on from these counts of a worker, in tokens."""

    process: Process
    counts: int


@dataclass(frozen=True)
class InForce(Event):
    """A worker serves in a new epoch."""

    process: Process
    group: str
    version: Version
    digest: bytes


@dataclass(frozen=True)
class Flipped(Event):
    """A worker flipped before this step."""

    process: Process
    version: Version
    digest: bytes
    step: int


Digested = EpochOpened | Offered | Prepared | Committed | Applied | InForce | Flipped
"""What says that a version has a digest."""

KINDS: Mapping[str, type[Event]] = {
    "started": Started,
    "epoch": EpochOpened,
    "offered": Offered,
    "prepared": Prepared,
    "committed": Committed,
    "commit_sent": CommitSent,
    "aborting": Aborting,
    "aborted": Aborted,
    "applied": Applied,
    "report": Reported,
    "restored": Restored,
    "in_force": InForce,
    "flipped": Flipped,
}
