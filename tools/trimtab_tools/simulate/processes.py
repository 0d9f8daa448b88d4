"""The processes of a fleet: in sessions of their own, and ended however the fleet ends."""

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

_REAPER = Path(__file__).with_name("reaper.py")
_MAX_QUOTED = 2000

Process = subprocess.Popen[str]


class Processes:
    """Starts processes, and kills all that still run when it is closed.

    They are in sessions of their own, so that Ctrl-C reaches the fleet alone, which then
    ends them. If the fleet itself is killed, the reaper kills them and removes the folder.

    Args:
        folder: of the fleet. It holds what the processes write to standard error.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._lock = threading.Lock()
        self._running: list[Process] = []
        self._logs: dict[int, Path] = {}
        self._closed = False
        # Without site packages it starts at once.
        command = [sys.executable, "-I", "-S", str(_REAPER), str(folder)]
        self._reaper = subprocess.Popen(  # noqa: S603
            command, stdin=subprocess.PIPE, text=True, start_new_session=True
        )

    def start(
        self, name: str, command: Sequence[str], pass_fds: Sequence[int] = (), **options: Any
    ) -> Process:
        """Start a process. The options are those of `Popen`.

        Raises:
            FleetError: the fleet has ended.
        """
        log = self.folder / f"{name}.log"
        with self._lock, log.open("ab") as errors:
            if self._closed:
                raise FleetError(f"{name} cannot start: the fleet has ended")
            process = subprocess.Popen(  # noqa: S603
                command,
                pass_fds=pass_fds,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
                text=True,
                errors="replace",
                **{"stderr": errors, **options},
            )
            self._logs[process.pid] = log
            self._running.append(process)
            self._tell_reaper(f"+{process.pid}")
        return process

    def wait(self, process: Process, timeout: float = 10.0) -> int:
        """Wait for a process that is about to end; returns its exit code, -9 for kill -9.

        Raises:
            subprocess.TimeoutExpired: it still runs.
        """
        code = process.wait(timeout)
        with self._lock:
            if process in self._running:
                self._running.remove(process)
                self._tell_reaper(f"-{process.pid}")
        return code

    def stderr_tail(self, process: Process) -> str:
        """The end of what a process has written to standard error."""
        with suppress(OSError):
            return self._logs[process.pid].read_text(errors="replace")[-_MAX_QUOTED:].strip()
        return ""

    def close(self) -> None:
        """Kill all processes that still run, also stopped ones."""
        with self._lock:
            self._closed, running = True, list(self._running)
        for process in running:
            process.kill()
        for process in running:
            self.wait(process)
        if self._reaper.stdin is not None:
            self._reaper.stdin.close()
        self._reaper.wait()

    def _tell_reaper(self, line: str) -> None:
        reaper = self._reaper.stdin
        if reaper is not None:
            with suppress(OSError):  # If the reaper was killed, only the safety net is gone.
                reaper.write(line + "\n")
                reaper.flush()


def send_signal(process: Process, number: signal.Signals) -> None:
    """Send a signal to a process if it still runs."""
    if process.poll() is None:
        process.send_signal(number)
