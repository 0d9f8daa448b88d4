"""All that runs while a fleet does: started in order, and gone at the end, however that comes."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from trimtab_tools.simulate.rank_processes import RankProcesses
from trimtab_tools.simulate.collective_server import CollectiveServer
from trimtab_tools.simulate.fleet_state import FleetState
from trimtab_tools.simulate.options import FleetOptions
from trimtab_tools.simulate.processes import Processes
from trimtab_tools.simulate.server import ServerProcess
from trimtab_tools.simulate.supervisor import Supervisor


@dataclass(frozen=True)
class Plan:
    """What to run.

    Attributes:
        options: the fleet's.
        server: address of a server; None: one of its own.
        history: where the history goes; None: into the fleet's folder, and with `server`
            nowhere.
        server_flags: of its own server.
        rank_command: that runs a rank.
        patience: longest wait for the server, in seconds.
    """

    options: FleetOptions
    server: str | None
    history: Path | None
    server_flags: Sequence[str]
    rank_command: Sequence[str]
    patience: float


@dataclass(frozen=True)
class FleetProcesses:
    """What runs.

    Attributes:
        server: the fleet's own; None: it uses another one.
        history: what has been written so far; None: nothing is.
        crew: the ranks' processes.
        supervisor: who forms their group.
        hub: the thread on which it does.
    """

    server: ServerProcess | None
    history: Path | None
    crew: RankProcesses
    supervisor: Supervisor
    hub: CollectiveServer


@contextmanager
def running(plan: Plan, ledger: FleetState) -> Iterator[FleetProcesses]:
    """Start all processes, and tell the ranks where the server is; in the end, end them.

    Raises:
        FleetError: the server cannot be started.
        DeadlineExceededError: it was not ready in time.
    """
    with ExitStack() as ending:
        folder = Path(tempfile.mkdtemp(prefix="trimtab-"))
        ending.callback(shutil.rmtree, folder, ignore_errors=True)
        processes = Processes(folder)
        ending.callback(processes.close)
        server, history, target = None, plan.history, plan.server or ""
        if not target:
            history = history or folder / "history.jsonl"
            server = ServerProcess(processes, folder, history, plan.server_flags, ledger)
            server.start()
        crew = RankProcesses(plan.options, processes, folder, history, plan.rank_command)
        supervisor = Supervisor(plan.options, crew, ledger)
        hub = supervisor.hub = CollectiveServer(supervisor)
        ending.callback(hub.close)
        # The hub's thread may wait for a process that is stopped: so they go before it.
        ending.callback(processes.close)
        for rank in range(plan.options.ranks):
            hub.post(partial(hub.add, rank, crew.start(rank)))
        if server is not None:
            ledger.wait("the server to be ready", lambda: server.is_ready or None, plan.patience)
            target = server.address
        hub.post(partial(supervisor.begin, target))
        yield FleetProcesses(server, history, crew, supervisor, hub)
