"""Starts all processes of a fleet in order, and ends them however the fleet ends."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from trimtab_client.exceptions import invalid
from trimtab_tools.simulate.fleet_state import FleetState
from trimtab_tools.simulate.options import FleetOptions
from trimtab_tools.simulate.processes import Processes
from trimtab_tools.simulate.rank_processes import RankProcesses
from trimtab_tools.simulate.server import ServerProcess
from trimtab_tools.simulate.supervisor import Supervisor


@dataclass(frozen=True)
class FleetProcesses:
    """The running processes of a fleet.

    Attributes:
        server: the fleet's own server; None if it uses another one.
        address: of the server that the fleet uses.
        history: the file of the history; None if there is none.
    """

    server: ServerProcess | None
    address: str
    history: Path | None
    ranks: RankProcesses
    supervisor: Supervisor

    def own_server(self) -> ServerProcess:
        """The server that the fleet has started.

        Raises:
            InvalidArgumentError: the fleet uses another one.
        """
        if self.server is None:
            raise invalid("server", "the fleet has not started it, and must not touch it")
        return self.server


@contextmanager
def launch(
    options: FleetOptions,
    state: FleetState,
    *,
    server: str | None,
    history: Path | None,
    server_flags: Sequence[str],
    rank_command: Sequence[str],
    patience: float,
) -> Iterator[FleetProcesses]:
    """Start all processes, and tell the ranks where the server is; at the end, end them.

    Args: those of `Fleet`.

    Raises:
        FleetError: the server cannot be started.
        DeadlineExceededError: it was not ready in time.
    """
    with ExitStack() as ending:
        folder = Path(tempfile.mkdtemp(prefix="trimtab-"))
        ending.callback(shutil.rmtree, folder, ignore_errors=True)
        processes = Processes(folder)
        ending.callback(processes.close)
        own, address = None, server or ""
        if not address:
            history = history or folder / "history.jsonl"
            own = ServerProcess(processes, history, server_flags, state)
            own.start()
        ranks = RankProcesses(options, processes, history, rank_command)
        supervisor = Supervisor(options, ranks, state)
        ending.callback(supervisor.close)
        # The supervisor's thread may be sending to a stopped process, so processes end first.
        ending.callback(processes.close)
        supervisor.start_ranks()
        if own is not None:
            own.wait_ready(patience)
            address = own.address
        supervisor.begin(address)
        yield FleetProcesses(own, address, history, ranks, supervisor)
