"""The processes of the ranks: started, signalled, replaced."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from multiprocessing.connection import Connection, Pipe
from pathlib import Path
from threading import Timer
from typing import Any

from trimtab_tools.simulate.messages import Setup
from trimtab_tools.simulate.options import FleetOptions
from trimtab_tools.simulate.processes import Process, Processes, signal_to

# Ranks share the cores: a library's own threads would only get in each other's way.
_ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")

RANK = (sys.executable, "-m", "trimtab_tools.simulate.rank")


class RankProcesses:
    """One process for each rank; a new one has a new address.

    Args:
        options: the fleet's.
        processes: by which they are started.
        folder: where they listen for each other.
        history: where they write theirs; None: nowhere.
        command: that runs a rank; it gets the number of a file descriptor.

    Attributes:
        addresses: of the ranks, where to read their weights.
    """

    def __init__(
        self,
        options: FleetOptions,
        processes: Processes,
        folder: Path,
        history: Path | None,
        command: Sequence[str] = RANK,
    ) -> None:
        self.addresses = [""] * options.ranks
        self._options = options
        self._processes = processes
        self._folder = folder
        self._history = history
        self._command = command
        self._started = 0
        self._running: dict[int, Process] = {}

    def start(self, rank: int) -> Connection[Any, Any]:
        """Start a rank's process; returns the fleet's end of its pipe."""
        self._started += 1
        # Short: the path of a socket may have about 100 bytes.
        self.addresses[rank] = str(self._folder / f"s{self._started}")
        ours, theirs = Pipe()
        with theirs:
            number = theirs.fileno()
            self._running[rank] = self._processes.start(
                f"rank-{rank}.{self._started}",
                [*self._command, str(number)],
                pass_fds=[number],
                env={**os.environ, **_ONE_THREAD},
            )
        return ours

    def setup(self, rank: int, target: str) -> Setup:
        """What to tell a process first."""
        return Setup(self._options, rank, target, self.addresses[rank], self._history)

    def kill(self, rank: int) -> None:
        """Kill -9."""
        signal_to(self._running[rank], signal.SIGKILL)

    def stop(self, rank: int) -> None:
        """SIGSTOP: it hangs, with all its connections."""
        signal_to(self._running[rank], signal.SIGSTOP)

    def go_on(self, rank: int) -> None:
        """SIGCONT."""
        signal_to(self._running[rank], signal.SIGCONT)

    def go_on_later(self, rank: int, seconds: float) -> None:
        """The same, for the process that it is now."""
        timer = Timer(seconds, signal_to, [self._running[rank], signal.SIGCONT])
        timer.daemon = True
        timer.start()

    def ended(self, rank: int) -> tuple[int, str]:
        """Of a process that is about to end: its exit code, and what it has said last."""
        process = self._running[rank]
        return self._processes.ended(process), self._processes.said(process)
