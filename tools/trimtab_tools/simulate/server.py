"""The server's process: started, killed, and started again on the same port and store."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from trimtab_tools.simulate.errors import FleetError
from trimtab_tools.simulate.fleet_state import FleetState
from trimtab_tools.simulate.processes import Process, Processes, signal_to

_AS_IF_KILLED = 137
"""How a server ends at a failpoint that was asked for."""


class ServerProcess:
    """A `trimtab-server serve` of the fleet's own.

    Args:
        processes: by which it is started.
        folder: for its store.
        history: where it writes its history.
        flags: further ones, such as "--offer-seconds", "5".
        ledger: told when it has become ready, and when it has ended by itself.

    Attributes:
        address: where it listens; empty before it first was ready.
        metrics: where its metrics are; empty unless a flag says so.
        alarms: what its operators would have been told.

    Raises:
        FleetError: the server's packages are not installed.
    """

    def __init__(
        self,
        processes: Processes,
        folder: Path,
        history: Path,
        flags: Sequence[str],
        ledger: FleetState,
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
            *("--store", str(folder / "store.db"), "--history", str(history)),
            *flags,
        )
        self._ledger = ledger
        self._process: Process | None = None
        self._ready = threading.Event()
        self._said: list[str] = []
        self._stopping = False

    @property
    def is_ready(self) -> bool:
        """Whether it has said so, and still runs."""
        process = self._process
        return self._ready.is_set() and process is not None and process.poll() is None

    def start(self, *flags: str) -> None:
        """Start it, as it was before and with further flags for this time; returns at once."""
        listen = self.address or "127.0.0.1:0"
        command = [sys.executable, "-m", "trimtab_server", "serve", "--listen", listen]
        self._ready.clear()
        self._process = process = self._processes.start(
            "server", [*command, *self._flags, *flags], stderr=subprocess.PIPE
        )
        reader = threading.Thread(target=self._read, args=(process,), daemon=True)
        reader.start()

    def kill(self) -> None:
        """Kill -9, and wait until it is gone."""
        process = self._process
        if process is not None:
            signal_to(process, signal.SIGKILL)
            self._processes.ended(process)
        self._ready.clear()

    def pause(self) -> None:
        """SIGSTOP: it hangs, with all its connections."""
        if self._process is not None:
            signal_to(self._process, signal.SIGSTOP)

    def go_on(self) -> None:
        """SIGCONT."""
        if self._process is not None:
            signal_to(self._process, signal.SIGCONT)

    def stop(self, timeout: float) -> None:
        """SIGTERM: it drains, and ends; after the timeout it is killed."""
        process = self._process
        if process is None:
            return
        self._stopping = True
        signal_to(process, signal.SIGCONT)
        signal_to(process, signal.SIGTERM)
        try:
            self._processes.ended(process, timeout)
        except subprocess.TimeoutExpired:
            self.kill()

    def _read(self, process: Process) -> None:
        """All the time: a server blocks on a full pipe."""
        if process.stderr is not None:
            with process.stderr as lines:
                for line in lines:
                    self._heard(process, line)
        code = process.wait()
        if code >= 0 and code != _AS_IF_KILLED and not self._stopping:
            self._ledger.fail(f"the server ended with code {code}: {' '.join(self._said[-5:])}")

    def _heard(self, process: Process, line: str) -> None:
        self._said = [*self._said[-20:], line.strip()]
        try:
            event: Any = json.loads(line)
        except ValueError:
            return  # a traceback, or a library's own words
        if event.get("event") == "alarm":
            self.alarms.append(str(event.get("reason", "")))
        elif event.get("event") == "ready" and process is self._process:
            self.address, self.metrics = event["address"], event.get("metrics") or ""
            self._ready.set()
            self._ledger.changed()
