"""The server's process: started, killed, and started again on the same port and store."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from signal import Signals
from typing import Any

from trimtab_tools.simulate.errors import FleetError
from trimtab_tools.simulate.fleet_state import FleetState
from trimtab_tools.simulate.processes import Process, Processes, send_signal

_KILLED_AT_FAILPOINT = 137


class ServerProcess:
    """The process of `trimtab-server serve` that a fleet has started.

    Args:
        processes: starts it.
        history: the file to which the server writes its history.
        flags: further flags, such as "--offer-seconds", "5".
        state: of the fleet; it learns when the server has become ready or has failed.

    Attributes:
        address: where the server listens; empty until it is ready for the first time.
        metrics: the address of its metrics; empty unless a flag asks for them.
        alarms: the alarms that the server has logged for its operators.

    Raises:
        FleetError: the server's packages are not installed.
    """

    def __init__(
        self, processes: Processes, history: Path, flags: Sequence[str], state: FleetState
    ) -> None:
        if find_spec("trimtab_server") is None:
            raise FleetError(
                "a fleet needs a server: pip install 'trimtab-tools[server]', or name a running "
                "one with --server"
            )
        self.address = self.metrics = ""
        self.alarms: list[str] = []
        self._processes = processes
        self._flags = (
            *("--device", "cpu", "--metrics-listen", "off", "--log-format", "json"),
            *("--store", str(processes.folder / "store.db"), "--history", str(history)),
            # `HistoryTail` and the checker read one file.
            *("--history-bytes", "0"),
            *flags,
        )
        self._state = state
        self._process: Process | None = None
        self._ready = threading.Event()
        self._last_lines: list[str] = []
        self._terminating = False

    @property
    def is_ready(self) -> bool:
        """Whether the server has logged that it is ready, and still runs."""
        return self._ready.is_set() and self._process is not None and self.exit_code is None

    @property
    def exit_code(self) -> int | None:
        """The exit code of the last process; None if it still runs."""
        return None if self._process is None else self._process.poll()

    def start(self, *flags: str) -> None:
        """Start the server as it was before, with further flags for this time; does not wait."""
        listen = self.address or "127.0.0.1:0"
        command = [sys.executable, "-m", "trimtab_server", "serve", "--listen", listen]
        self._ready.clear()
        self._process = process = self._processes.start(
            "server", [*command, *self._flags, *flags], stderr=subprocess.PIPE
        )
        reader = threading.Thread(target=self._read, args=(process,), daemon=True)
        reader.start()

    def wait_ready(self, timeout: float) -> None:
        """Wait until the server is ready.

        Raises:
            FleetError: the fleet cannot go on.
            DeadlineExceededError: the server was not ready in time.
        """
        self._state.wait("the server to be ready", lambda: self.is_ready or None, timeout)

    def kill(self) -> None:
        """Kill the server by SIGKILL, and wait until its process has ended."""
        process = self._process
        if process is not None:
            send_signal(process, Signals.SIGKILL)
            self._processes.wait(process)
        self._ready.clear()

    def signal(self, number: Signals) -> None:
        """Send a signal. SIGSTOP has the server hang, with all its connections open."""
        if self._process is not None:
            send_signal(self._process, number)

    def terminate(self, timeout: float) -> bool:
        """Have the server drain and end, by SIGTERM; kill it if that takes too long.

        Returns whether it has ended. Not even SIGKILL ends a process at once that waits for a disk.
        """
        process = self._process
        if process is None:
            return True
        self._terminating = True
        send_signal(process, Signals.SIGCONT)
        send_signal(process, Signals.SIGTERM)
        try:
            self._processes.wait(process, timeout)
        except subprocess.TimeoutExpired:
            with suppress(subprocess.TimeoutExpired):
                self.kill()
        return process.poll() is not None

    def _read(self, process: Process) -> None:
        """Read the log all the time, since a server blocks on a full pipe."""
        if process.stderr is not None:
            with process.stderr as lines:
                for line in lines:
                    self._log_line(process, line)
        code = process.wait()
        if code >= 0 and code != _KILLED_AT_FAILPOINT and not self._terminating:
            last = " ".join(self._last_lines[-5:])
            self._state.fail(f"the server ended with code {code}: {last}")

    def _log_line(self, process: Process, line: str) -> None:
        self._last_lines = [*self._last_lines[-20:], line.strip()]
        try:
            event: Any = json.loads(line)
        except ValueError:
            return  # A traceback, or the message of a library.
        if not isinstance(event, dict):
            return
        if event.get("event") == "alarm":
            self.alarms.append(str(event.get("reason", "")))
        elif event.get("event") == "ready" and process is self._process:
            self.address = event.get("address", self.address)
            self.metrics = event.get("metrics") or ""
            self._ready.set()
            self._state.notify()
