"""The processes of a fleet: started apart from it, and never left behind."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from trimtab_tools.simulate.errors import FleetError

_GUARD = Path(__file__).with_name("reaper.py")
_MOST_QUOTED = 2000

Process = subprocess.Popen[str]


class Processes:
    """Starts processes, and ends all of them at the end, however that comes.

    They are in sessions of their own, so that Ctrl-C reaches the fleet alone, which then
    ends them. Where the fleet itself is killed, a guard does it, and removes the folder.

    Args:
        folder: the fleet's own; what the processes say on standard error is kept there.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        self._running: list[Process] = []
        self._logs: dict[int, Path] = {}
        self._closed = False
        # Without site packages, and so at once.
        command = [sys.executable, "-I", "-S", str(_GUARD), str(folder)]
        self._guard = subprocess.Popen(  # noqa: S603
            command, stdin=subprocess.PIPE, text=True, start_new_session=True
        )

    def start(
        self, name: str, command: Sequence[str], pass_fds: Sequence[int] = (), **options: Any
    ) -> Process:
        """Start a process. Options are those of `Popen`.

        Raises:
            FleetError: the fleet has ended.
        """
        log = self._folder / f"{name}.log"
        with self._lock, log.open("ab") as errors:
            if self._closed:
                raise FleetError(f"{name} cannot start: the fleet has ended")
            process = subprocess.Popen(  # noqa: S603
                command,
                pass_fds=pass_fds,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
                text=True,
                **{"stderr": errors, **options},
            )
            self._logs[process.pid] = log
            self._running.append(process)
            self._tell_guard(f"+{process.pid}")
        return process

    def ended(self, process: Process, timeout: float = 10.0) -> int:
        """Wait for a process that is about to end; returns its exit code, -9 for kill -9.

        Raises:
            subprocess.TimeoutExpired: it still runs.
        """
        code = process.wait(timeout)
        with self._lock:
            if process in self._running:
                self._running.remove(process)
                self._tell_guard(f"-{process.pid}")
        return code

    def said(self, process: Process) -> str:
        """The end of what it has said on standard error."""
        with suppress(OSError):
            return self._logs[process.pid].read_text(errors="replace")[-_MOST_QUOTED:].strip()
        return ""

    def close(self) -> None:
        """Kill what still runs, stopped or not."""
        with self._lock:
            self._closed, running = True, list(self._running)
        for process in running:
            process.kill()
        for process in running:
            self.ended(process)
        if self._guard.stdin is not None:
            self._guard.stdin.close()
        self._guard.wait()

    def _tell_guard(self, line: str) -> None:
        guard = self._guard.stdin
        if guard is not None:
            with suppress(OSError):  # it was killed: nothing but the safety net is gone
                guard.write(line + "\n")
                guard.flush()


def signal_to(process: Process, number: signal.Signals) -> None:
    """Send a signal, if the process still runs."""
    if process.poll() is None:
        process.send_signal(number)
