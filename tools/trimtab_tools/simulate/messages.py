"""What the fleet and its ranks tell each other, over a pipe of their own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from trimtab_client.placement import IntArray
from trimtab_client.version import Version
from trimtab_tools.simulate.options import FleetOptions
from trimtab_tools.simulate.trace import Counts


class SwitchPoint(Enum):
    """Where a rank can be on its way through a switch, when a fault strikes.

    ACCEPTED: it is about to fill its staging. PREPARED: all is there, and the server does
    not know it yet. ARMED: it has the commit, and has not said so to the group. FLIPPING:
    all ranks have heard that all are armed, and this one has yet to flip.
    """

    ACCEPTED = "accepted"
    PREPARED = "prepared"
    ARMED = "armed"
    FLIPPING = "flipping"


class FaultKind(Enum):
    """What a rank does to itself."""

    KILL = "kill-rank"
    STOP = "stop-rank"
    REFUSE = "refuse"
    SLOW = "slow"


# To a rank.


@dataclass(frozen=True)
class Setup:
    """Who it is.

    Attributes:
        options: the fleet's.
        index: its number, and that of its GPU.
        target: where the server is.
        address: where it serves reads of its weights, a path.
        history: where it writes what has happened to it; None: nowhere.
    """

    options: FleetOptions
    index: int
    target: str
    address: str
    history: Path | None


@dataclass(frozen=True)
class Join:
    """Serve in this group, until it breaks.

    Attributes:
        group: its name, which is new.
        step: the first step.
        phy2log: what all serve by, int32 [L, R].
        addresses: of all ranks, where to read their weights.
    """

    group: str
    step: int
    phy2log: IntArray
    addresses: tuple[str, ...]


@dataclass(frozen=True)
class Leave:
    """The end: say goodbye to the server, and exit."""


@dataclass(frozen=True)
class InjectFault:
    """Do this the next time that you come to this point.

    Attributes:
        point: where.
        deed: what.
        seconds: how much longer a SLOW transfer takes, or how long a STOP lasts (0: until
            somebody ends it).
    """

    point: SwitchPoint
    deed: FaultKind
    seconds: float = 0.0


@dataclass(frozen=True)
class Result:
    """Of a collective: what each member had for this one, in order."""

    parts: Sequence[bytes]


@dataclass(frozen=True)
class GroupBroken:
    """There is no result, and there is none for any other member: the group has ended."""

    reason: str


# From a rank.


@dataclass(frozen=True)
class Ready:
    """It serves reads, and can join a group."""


@dataclass(frozen=True)
class Contribution:
    """What it brings to a collective: something for each member, in order.

    Attributes:
        step: before or in which step.
        what: which of the step's collectives.
        parts: for each member.
    """

    step: int
    what: str
    parts: Sequence[bytes]


@dataclass(frozen=True)
class RankEvent:
    """Something has happened to it.

    `kind` is that of a `StateEvent`, with its values; or of the rank itself: accepted,
    discarded (`version`), struck (the fields of `InjectFault`), serving (`group`, after its first step).

    Attributes:
        at: when, in seconds of the machine's monotonic clock, which all processes share.
        kind: what.
        values: what belongs to it.
    """

    at: float
    kind: str
    values: Mapping[str, Any]


@dataclass(frozen=True)
class Progress:
    """How far it has come since its process began.

    Attributes:
        step: the last that it has done.
        tokens: of its own, that came back.
        wrong: of these, with a value that is not their expert's.
        moved: bytes of weights that it has received from other ranks.
        moves: expert weights new to its GPU, by its flips.
        example: a wrong token since the last time, if there is one.
    """

    step: int
    tokens: int
    wrong: int
    moved: int
    moves: int = 0
    example: str = ""


@dataclass(frozen=True)
class WindowCounts:
    """What its slots have processed in a window of the trace that has ended.

    Attributes:
        window: its number, from 0.
        steps: that are in it; fewer than a window has where the process has begun within it.
        counts_LE: int64, tokens of each logical expert.
    """

    window: int
    steps: int
    counts_LE: Counts


@dataclass(frozen=True)
class LeftGroup:
    """It has heard that its group is broken, and waits for another one.

    Attributes:
        step: the one that it could not finish, or begin.
        version: what it serves by; None before its first epoch.
        phy2log: the same, int32 [L, R].
    """

    step: int
    version: Version | None
    phy2log: IntArray


ToRank = Setup | Join | Leave | InjectFault | Result | GroupBroken
FromRank = Ready | Contribution | RankEvent | Progress | WindowCounts | LeftGroup
