"""The messages between the fleet and its ranks, which go over one pipe for each rank."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from trimtab_client.placement import IntArray
from trimtab_protocol.version import Version
from trimtab_tools.simulate.options import FleetOptions
from trimtab_tools.simulate.trace import Counts


class SwitchPoint(Enum):
    """A point in a switch at which a rank can be hit by a fault.

    ACCEPTED: the rank is about to fill its staging. PREPARED: staging is full, and the server
    does not know it yet. ARMED: the rank has the commit, and has not told the group yet.
    FLIPPING: all ranks know that all are armed, and this one has not flipped yet.
    """

    ACCEPTED = "accepted"
    PREPARED = "prepared"
    ARMED = "armed"
    FLIPPING = "flipping"


class Action(Enum):
    """The kinds of faults. Their values are the words of the command line."""

    KILL_SERVER = "kill-server"
    STOP_SERVER = "stop-server"
    KILL_RANK = "kill-rank"
    STOP_RANK = "stop-rank"
    REFUSE = "refuse"
    SLOW = "slow"

    @property
    def concerns_a_rank(self) -> bool:
        """Whether the fault happens to a rank, and not to the server."""
        return self not in (Action.KILL_SERVER, Action.STOP_SERVER)


# To a rank.


@dataclass(frozen=True)
class Setup:
    """The first message to a rank.

    Attributes:
        options: the fleet's options.
        index: the rank's number, which is also the number of its GPU.
        target: the address of the server.
        address: the path of the socket at which the rank serves reads of its weights.
        history: the file to which the rank adds its events; None if there is no history.
    """

    options: FleetOptions
    index: int
    target: str
    address: str
    history: Path | None


@dataclass(frozen=True)
class Join:
    """Serve in this group, which is new, until it breaks.

    Attributes:
        step: the first step.
        phy2log: the placement by which all ranks begin, int32 [L, R].
        addresses: where each rank serves reads of its weights.
    """

    group: str
    step: int
    phy2log: IntArray
    addresses: tuple[str, ...]


@dataclass(frozen=True)
class Leave:
    """The simulation ends: close the session, and exit."""


@dataclass(frozen=True)
class InjectFault:
    """Cause this fault the next time that the rank reaches this point.

    Attributes:
        point: where in a switch.
        action: which fault of a rank.
        seconds: how much longer a SLOW transfer takes, or how long a STOP_RANK lasts (0 if
            somebody else ends it).
    """

    point: SwitchPoint
    action: Action
    seconds: float = 0.0


@dataclass(frozen=True)
class Result:
    """The result of a collective: what each member has sent to this one, in their order."""

    parts: Sequence[bytes]


@dataclass(frozen=True)
class GroupBroken:
    """The collective has no result for any member: the group has ended."""

    reason: str


# From a rank.


@dataclass(frozen=True)
class Ready:
    """The rank serves reads, and can join a group."""


@dataclass(frozen=True)
class Contribution:
    """What a rank brings to a collective: a part for each member, in their order.

    A step has several collectives, each with a name.
    """

    step: int
    collective: str
    parts: Sequence[bytes]


@dataclass(frozen=True)
class RankEvent:
    """Something that has happened to a rank.

    The kinds are those of `StateEvent`, with the same values, and these of the rank itself:
    accepted and discarded (`version`), fault_pending (it knows of a fault to come), fault_injected
    (`fault`, an `InjectFault`), and serving
    (`group`, after its first step).

    Attributes:
        at: when, in seconds of the machine's monotonic clock, which all processes share.
        kind: what has happened.
        values: details, by name.
    """

    at: float
    kind: str
    values: Mapping[str, Any]


@dataclass(frozen=True)
class Progress:
    """What a rank's process has done since it began.

    Attributes:
        step: the last step that it has finished.
        tokens: number of its own tokens that have come back.
        wrong: number of these whose value is not what their expert gives.
        moved: bytes of weights that it has received from other ranks.
        moves: number of expert weights that its flips have brought to its GPU.
        example: a wrong token since the last message; empty if there is none.
    """

    step: int
    tokens: int
    wrong: int
    moved: int
    moves: int = 0
    example: str = ""


@dataclass(frozen=True)
class WindowCounts:
    """What a rank's slots have processed in a window of the trace that has ended.

    Attributes:
        window: number of the window, from 0.
        steps: number of steps that are counted; less than a window has if the rank's process
            began within it.
        counts_LE: int64, tokens of each logical expert.
    """

    window: int
    steps: int
    counts_LE: Counts


@dataclass(frozen=True)
class LeftGroup:
    """The rank knows that its group is broken, and waits for the next one.

    Attributes:
        step: the step that it could not begin or finish.
        version: the version by which it serves; None before its first epoch.
        phy2log: the placement by which it serves, int32 [L, R].
    """

    step: int
    version: Version | None
    phy2log: IntArray


ToRank = Setup | Join | Leave | InjectFault | Result | GroupBroken
FromRank = Ready | Contribution | RankEvent | Progress | WindowCounts | LeftGroup
