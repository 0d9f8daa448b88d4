"""What is known of a fleet, and when it happened; and waiting for something to be so."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from typing import TypeVar

from trimtab_client.exceptions import DeadlineExceededError
from trimtab_client.version import Version
from trimtab_tools.simulate.errors import FleetError
from trimtab_tools.simulate.messages import WindowCounts, Progress, RankEvent
from trimtab_tools.simulate.options import FleetOptions
from trimtab_tools.simulate.windows import Windows

_T = TypeVar("_T")
_POLL_S = 0.005
_MOST_EXAMPLES = 100
_NONE = Progress(-1, 0, 0, 0)


class Status(Enum):
    """How a rank's process is.

    STARTING: not ready yet. READY: it waits for a group. SERVING: it is in one. GONE: it
    has ended, and is not replaced.
    """

    STARTING = "starting"
    READY = "ready"
    SERVING = "serving"
    GONE = "gone"


@dataclass
class RankState:
    """What a rank has said last.

    Attributes:
        status: of its process.
        group: in which it has an epoch; empty before its first.
        version: what it serves by.
        digest: of that.
        progress: of this process.
    """

    status: Status = Status.STARTING
    group: str = ""
    version: Version | None = None
    digest: bytes = b""
    progress: Progress = _NONE


@dataclass
class Switch:
    """A version that ranks have accepted.

    Attributes:
        accepted_at: when the first one did.
        flipped: the ranks that have flipped, and before which step.
        flipped_at: when the last one so far did.
        discarded: whether a rank has given it up.
        is_whole: whether all ranks of its group have flipped.
    """

    accepted_at: float
    flipped: dict[int, int] = field(default_factory=dict)
    flipped_at: float = 0.0
    discarded: bool = False
    is_whole: bool = False


@dataclass
class InjectedFault:
    """A fault that has struck.

    Attributes:
        at: when.
        fault: what, in the words of the command line.
    """

    at: float
    fault: str


class FleetState:
    """Written by the hub's thread, read by any. All times are of the monotonic clock.

    Args:
        options: the fleet's.

    Attributes:
        ranks: what each has said last.
        group: the present group's name; empty before the first.
        groups: how many there have been.
        switches: by version.
        served_at: when all ranks of a group had taken its first step, for each group.
        faults: that have struck.
        complaints: what ranks have noted that broke the protocol, without effect.
        examples: of wrong tokens, the first ones.
        failures: why the fleet cannot go on.
        interrupted: whether somebody wants it to end now.
        windows: of the trace, as they were served.
    """

    def __init__(self, options: FleetOptions) -> None:
        self.ranks = [RankState() for _ in range(options.ranks)]
        self.windows = Windows(options.untouched, options.steps_per_window)
        self.group = ""
        self.groups = 0
        self.switches: dict[Version, Switch] = {}
        self.served_at: list[float] = []
        self.faults: list[InjectedFault] = []
        self.complaints: list[str] = []
        self.examples: list[str] = []
        self.failures: list[str] = []
        self.interrupted = False
        self._serving: set[int] = set()
        # Of processes that have ended.
        self._spent = _NONE
        self._changed = threading.Condition()

    # The hub's thread.

    def status(self, rank: int, status: Status) -> None:
        """A rank's process has changed."""
        with self._changed:
            self.ranks[rank].status = status
            self._changed.notify_all()

    def formed(self, group: str) -> None:
        """All ranks are in a new group."""
        with self._changed:
            self.group, self.groups = group, self.groups + 1
            self._serving = set()
            for state in self.ranks:
                state.status = Status.SERVING
            self._changed.notify_all()

    def lost(self, rank: int) -> None:
        """A rank's process has ended."""
        with self._changed:
            self._spent = _sum(self._spent, self.ranks[rank].progress)
            self.ranks[rank] = RankState()
            self._changed.notify_all()

    def progress(self, rank: int, progress: Progress) -> None:
        """A rank has come further."""
        with self._changed:
            self.ranks[rank].progress = progress
            if progress.example and len(self.examples) < _MOST_EXAMPLES:
                self.examples.append(progress.example)
            self._changed.notify_all()

    def counted(self, rank: int, counted: WindowCounts) -> None:
        """A rank has come to the end of a window."""
        with self._changed:
            self.windows.add(rank, counted)
            self._changed.notify_all()

    def told(self, rank: int, told: RankEvent) -> None:
        """A rank has said what has happened to it."""
        with self._changed:
            state, values = self.ranks[rank], told.values
            match told.kind:
                case "in_force":
                    state.group = values["group"]
                    state.version, state.digest = values["version"], values["digest"]
                case "flipped":
                    state.version, state.digest = values["version"], values["digest"]
                    self._flipped(rank, told.at, values["version"], values["step"])
                case "accepted":
                    self.switches.setdefault(values["version"], Switch(told.at))
                case "discarded":
                    self.switches.setdefault(values["version"], Switch(told.at)).discarded = True
                case "complaint":
                    self.complaints.append(f"rank {rank}: {values['reason']}")
                case "serving" if values["group"] == self.group:
                    self._serving.add(rank)
                    if len(self._serving) == len(self.ranks):
                        self.served_at.append(told.at)
            self._changed.notify_all()

    # Any thread.

    def struck(self, at: float, fault: str) -> None:
        """A fault has struck."""
        with self._changed:
            self.faults.append(InjectedFault(at, fault))
            self._changed.notify_all()

    def fail(self, reason: str) -> None:
        """The fleet cannot go on."""
        with self._changed:
            self.failures.append(reason)
            self._changed.notify_all()

    def changed(self) -> None:
        """Something that a condition asks for may be so now."""
        with self._changed:
            self._changed.notify_all()

    def total(self) -> Progress:
        """Sums over all processes that there are and have been; the highest step of all."""
        with self._changed:
            total = self._spent
            for state in self.ranks:
                total = _sum(total, state.progress)
        return total

    def wait(self, what: str, condition: Callable[[], _T | None], timeout: float) -> _T:
        """Wait until a condition gives something.

        Raises:
            FleetError: the fleet cannot go on.
            DeadlineExceededError: it was not so in time. Says how the ranks are.
        """
        found = self.wait_for(condition, timeout)
        if found is None:
            raise DeadlineExceededError(f"waited {timeout:g} s for {what}: {self.shown()}")
        return found

    def wait_for(self, condition: Callable[[], _T | None], timeout: float) -> _T | None:
        """Wait until a condition gives something; None: it has not, in time.

        It is asked whenever anything has changed, and now and then.

        Raises:
            FleetError: the fleet cannot go on.
            KeyboardInterrupt: it is `interrupted`.
        """
        end = time.monotonic() + timeout
        with self._changed:
            while (found := condition()) is None:
                if self.interrupted:
                    raise KeyboardInterrupt
                if self.failures:
                    raise FleetError("; ".join(self.failures))
                left = end - time.monotonic()
                if left <= 0:
                    return None
                self._changed.wait(min(left, _POLL_S))
        return found

    def shown(self) -> str:
        """How the ranks are."""
        with self._changed:
            return "; ".join(
                f"rank {number} {state.status.value}"
                + ("" if state.version is None else f" by {state.version}")
                for number, state in enumerate(self.ranks)
            )

    def _flipped(self, rank: int, at: float, version: Version, step: int) -> None:
        switch = self.switches.setdefault(version, Switch(at))
        switch.flipped[rank] = step
        switch.flipped_at = max(switch.flipped_at, at)
        switch.is_whole = len(switch.flipped) == len(self.ranks)


def _sum(one: Progress, other: Progress) -> Progress:
    return Progress(
        max(one.step, other.step),
        one.tokens + other.tokens,
        one.wrong + other.wrong,
        one.moved + other.moved,
        one.moves + other.moves,
    )
