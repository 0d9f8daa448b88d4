"""What a fleet knows of its ranks and of what has happened, with ways to wait for changes."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from typing import TypeVar

from trimtab_client.exceptions import DeadlineExceededError
from trimtab_protocol.version import Version
from trimtab_tools.simulate.errors import FleetError
from trimtab_tools.simulate.messages import Progress, RankEvent, WindowCounts
from trimtab_tools.simulate.options import FleetOptions
from trimtab_tools.simulate.windows import Windows

_T = TypeVar("_T")
_POLL_S = 0.005
_MAX_EXAMPLES = 100
_NO_PROGRESS = Progress(-1, 0, 0, 0)


class RankStatus(Enum):
    """The status of a rank's process.

    STARTING: it is not ready yet. READY: it waits for a group. SERVING: it is in a group.
    GONE: it has ended, and is not replaced.
    """

    STARTING = "starting"
    READY = "ready"
    SERVING = "serving"
    GONE = "gone"


@dataclass
class RankState:
    """The last that is known of a rank.

    Attributes:
        status: of its process.
        group: the group in which it has an epoch; empty before its first one.
        version: the version by which it serves; None before its first epoch.
        digest: of the placement by which it serves.
        progress: of its present process.
    """

    status: RankStatus = RankStatus.STARTING
    group: str = ""
    version: Version | None = None
    digest: bytes = b""
    progress: Progress = _NO_PROGRESS


@dataclass
class Switch:
    """A version that ranks have accepted.

    Attributes:
        accepted_at: when the first rank did.
        flipped: the ranks that have flipped, each with the step before which it did.
        flipped_at: when the last one so far did.
        discarded: whether a rank has given it up.
        is_complete: whether all ranks have flipped.
    """

    accepted_at: float
    flipped: dict[int, int] = field(default_factory=dict)
    flipped_at: float = 0.0
    discarded: bool = False
    is_complete: bool = False


@dataclass
class InjectedFault:
    """A fault that has happened: when, and which one in the words of the command line."""

    at: float
    fault: str


class FleetState:
    """The state of a fleet. All times are of the monotonic clock. Any thread may read it.

    Attributes:
        began: when the fleet was made.
        ranks: the state of each rank.
        group: name of the present group; empty before the first one.
        groups_formed: number of groups so far.
        switches: by version.
        serving_since: for each group, when all its ranks had taken their first step.
        target_seconds: for each placement that was asked for, how long it took until all ranks
            served by it.
        faults: that have been injected.
        complaints: breaches of the protocol that ranks have reported, and that had no effect.
        examples: of wrong tokens, the first ones.
        failures: why the fleet cannot go on; empty if it can.
        faults_received: how many faults to come the ranks know of.
        interrupted: whether the user has asked the fleet to end now.
        windows: of the trace, as they were served.
    """

    def __init__(self, options: FleetOptions) -> None:
        self.began = time.monotonic()
        self.ranks = [RankState() for _ in range(options.ranks)]
        self.windows = Windows(options.ranks, options.steps_per_window)
        self.group = ""
        self.groups_formed = 0
        self.switches: dict[Version, Switch] = {}
        self.serving_since: list[float] = []
        self.target_seconds: list[float] = []
        self.faults: list[InjectedFault] = []
        self.complaints: list[str] = []
        self.examples: list[str] = []
        self.failures: list[str] = []
        self.interrupted = False
        self.faults_received = 0
        self._serving: set[int] = set()
        self._progress_of_ended = _NO_PROGRESS
        self._changed = threading.Condition()

    # The supervisor's thread.

    def set_status(self, rank: int, status: RankStatus) -> None:
        """The status of a rank's process has changed."""
        with self._changed:
            self.ranks[rank].status = status
            self._changed.notify_all()

    def group_formed(self, group: str) -> None:
        """All ranks are in a new group."""
        with self._changed:
            self.group, self.groups_formed = group, self.groups_formed + 1
            self._serving = set()
            for state in self.ranks:
                state.status = RankStatus.SERVING
            self._changed.notify_all()

    def rank_lost(self, rank: int) -> None:
        """A rank's process has ended."""
        with self._changed:
            self._progress_of_ended = _sum(self._progress_of_ended, self.ranks[rank].progress)
            self.ranks[rank] = RankState()
            self._changed.notify_all()

    def rank_progressed(self, rank: int, progress: Progress) -> None:
        """A rank has reported its progress."""
        with self._changed:
            self.ranks[rank].progress = progress
            if progress.example and len(self.examples) < _MAX_EXAMPLES:
                self.examples.append(progress.example)
            self._changed.notify_all()

    def window_counted(self, rank: int, counts: WindowCounts) -> None:
        """A rank has come to the end of a window."""
        with self._changed:
            self.windows.add(rank, counts)
            self._changed.notify_all()

    def rank_event(self, rank: int, event: RankEvent) -> None:
        """A rank has reported what has happened to it."""
        with self._changed:
            state, values = self.ranks[rank], event.values
            match event.kind:
                case "in_force":
                    state.group = values["group"]
                    state.version, state.digest = values["version"], values["digest"]
                case "flipped":
                    state.version, state.digest = values["version"], values["digest"]
                    self._flipped(rank, event.at, values["version"], values["step"])
                case "accepted":
                    self._switch(values["version"], event.at)
                case "discarded":
                    self._switch(values["version"], event.at).discarded = True
                case "fault_pending":
                    self.faults_received += 1
                case "complaint":
                    self.complaints.append(f"rank {rank}: {values['reason']}")
                case "serving" if values["group"] == self.group:
                    self._serving.add(rank)
                    if len(self._serving) == len(self.ranks):
                        self.serving_since.append(event.at)
            self._changed.notify_all()

    # Any thread.

    def fault_injected(self, at: float, fault: str) -> None:
        """A fault has happened."""
        with self._changed:
            self.faults.append(InjectedFault(at, fault))
            self._changed.notify_all()

    def fail(self, reason: str) -> None:
        """The fleet cannot go on."""
        with self._changed:
            self.failures.append(reason)
            self._changed.notify_all()

    def notify(self) -> None:
        """Wake the threads that wait: something else has changed that they may wait for."""
        with self._changed:
            self._changed.notify_all()

    def total(self) -> Progress:
        """The sums over all processes, also those that have ended; the highest step of all."""
        with self._changed:
            total = self._progress_of_ended
            for state in self.ranks:
                total = _sum(total, state.progress)
        return total

    def switches_completed(self) -> list[Switch]:
        """The switches to which all ranks have flipped."""
        with self._changed:
            return [switch for switch in self.switches.values() if switch.is_complete]

    def version_in_force(self) -> Version | None:
        """The version by which all ranks of the present group serve; None if they differ."""
        with self._changed:
            versions = {state.version for state in self.ranks}
            if any(state.group != self.group for state in self.ranks) or len(versions) != 1:
                return None
            return versions.pop()

    def version_with(self, digest: bytes) -> Version | None:
        """The version by which all ranks serve if it is the placement of this digest, else None."""
        with self._changed:
            version = self.version_in_force()
            return version if all(state.digest == digest for state in self.ranks) else None

    def wait(self, what: str, condition: Callable[[], _T | None], timeout: float) -> _T:
        """Wait until a condition returns something other than None; returns that.

        Raises:
            FleetError: the fleet cannot go on.
            DeadlineExceededError: it took too long. The message says how the ranks are.
        """
        found = self.wait_or_none(condition, timeout)
        if found is None:
            raise DeadlineExceededError(f"waited {timeout:g} s for {what}: {self.summary()}")
        return found

    def wait_or_none(self, condition: Callable[[], _T | None], timeout: float) -> _T | None:
        """Wait until a condition returns something other than None; None if it takes too long.

        The condition is called after each change, and regularly in between.

        Raises:
            FleetError: the fleet cannot go on.
            KeyboardInterrupt: the user has asked the fleet to end.
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

    def sleep(self, seconds: float) -> None:
        """Sleep, and raise what `wait_or_none` raises."""
        self.wait_or_none(lambda: None, seconds)

    def summary(self) -> str:
        """The status and version of each rank, as text."""
        with self._changed:
            return "; ".join(
                f"rank {number} {state.status.value}"
                + ("" if state.version is None else f" by {state.version}")
                for number, state in enumerate(self.ranks)
            )

    def _switch(self, version: Version, at: float) -> Switch:
        return self.switches.setdefault(version, Switch(at))

    def _flipped(self, rank: int, at: float, version: Version, step: int) -> None:
        switch = self._switch(version, at)
        switch.flipped[rank] = step
        switch.flipped_at = max(switch.flipped_at, at)
        switch.is_complete = len(switch.flipped) == len(self.ranks)


def _sum(one: Progress, other: Progress) -> Progress:
    return Progress(
        max(one.step, other.step),
        one.tokens + other.tokens,
        one.wrong + other.wrong,
        one.moved + other.moved,
        one.moves + other.moves,
    )
