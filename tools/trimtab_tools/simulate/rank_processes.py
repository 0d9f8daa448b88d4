"""The processes of the ranks: started, signalled and replaced."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from multiprocessing.connection import Connection, Pipe
from pathlib import Path
from signal import Signals
from threading import Timer
from typing import Any

from trimtab_tools.simulate.messages import Setup
from trimtab_tools.simulate.options import FleetOptions
from trimtab_tools.simulate.processes import Process, Processes, send_signal

# The ranks share the cores, so threads of libraries would only get in each other's way.
_ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")

RANK_COMMAND = (sys.executable, "-m", "trimtab_tools.simulate.rank")


class RankProcesses:
    """One process for each rank. A process that replaces another one has a new address.

    Args:
        history: the file to which they add their events; None if there is no history.
        command: runs a rank; it gets the number of a file descriptor as its last argument.

    Attributes:
        addresses: where each rank serves reads of its weights.
    """

    def __init__(
        self,
        options: FleetOptions,
        processes: Processes,
        history: Path | None,
        command: Sequence[str] = RANK_COMMAND,
    ) -> None:
        self.addresses = [""] * options.ranks
        self._options = options
        self._processes = processes
        self._history = history
        self._command = command
        self._started = 0
        self._running: dict[int, Process] = {}

    def start(self, rank: int) -> Connection[Any, Any]:
        """Start a rank's process; returns the fleet's end of its pipe."""
        self._started += 1
        # Short, since the path of a socket has at most about 100 bytes.
        self.addresses[rank] = str(self._processes.folder / f"s{self._started}")
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
        """The first message to a rank's process, which names the server."""
        return Setup(self._options, rank, target, self.addresses[rank], self._history)

    def signal(self, rank: int, number: Signals) -> None:
        """Send a signal to a rank's process. SIGSTOP has it hang, with all its connections open."""
        send_signal(self._running[rank], number)

    def resume_later(self, rank: int, seconds: float) -> None:
        """Let the process that is the rank's now go on after some time."""
        timer = Timer(seconds, send_signal, [self._running[rank], Signals.SIGCONT])
        timer.daemon = True
        timer.start()

    def wait(self, rank: int) -> tuple[int, str]:
        """Wait for a process that is about to end; returns its exit code and its last words."""
        process = self._running[rank]
        return self._processes.wait(process), self._processes.stderr_tail(process)
