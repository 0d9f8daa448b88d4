"""The faults that a fleet can be made to have."""

from __future__ import annotations

import time
from functools import partial

from trimtab_client.exceptions import invalid
from trimtab_tools.simulate.fleet_state import FleetState
from trimtab_tools.simulate.messages import InjectFault, FaultKind, SwitchPoint
from trimtab_tools.simulate.launch import FleetProcesses
from trimtab_tools.simulate.server import ServerProcess


class Strikes:
    """The part of a fleet that goes wrong."""

    ledger: FleetState
    patience: float
    _running: FleetProcesses

    def kill_rank(self, rank: int, at: SwitchPoint | None = None) -> None:
        """Kill -9 of a rank, now or at a point of the next switch. It is replaced."""
        self._strike(rank, FaultKind.KILL, at)

    def stop_rank(self, rank: int, at: SwitchPoint | None = None, seconds: float = 0.0) -> None:
        """SIGSTOP of a rank, now or at a point of the next switch; 0 s: until `go_on_rank`."""
        self._strike(rank, FaultKind.STOP, at, seconds)

    def go_on_rank(self, rank: int) -> None:
        """SIGCONT."""
        self._running.crew.go_on(rank)

    def refuse(self, rank: int) -> None:
        """Have a rank refuse the next offer."""
        self._strike(rank, FaultKind.REFUSE, SwitchPoint.PREPARED)

    def slow(self, rank: int, seconds: float) -> None:
        """Have a rank's next transfer take so much longer."""
        self._strike(rank, FaultKind.SLOW, SwitchPoint.PREPARED, seconds)

    def kill_server(self) -> None:
        """Kill -9 of the fleet's own server; returns when it is gone."""
        self.ledger.struck(time.monotonic(), "kill-server")
        self.own_server().kill()

    def start_server(self, *flags: str, wait: bool = True) -> None:
        """Start it again, on the same port and store, with further flags for this time."""
        server = self.own_server()
        server.start(*flags)
        if wait:
            self.ledger.wait(
                "the server to be ready", lambda: server.is_ready or None, self.patience
            )

    def stop_server(self) -> None:
        """SIGSTOP of the fleet's own server, until `go_on_server`."""
        self.ledger.struck(time.monotonic(), "stop-server")
        self.own_server().pause()

    def go_on_server(self) -> None:
        """SIGCONT."""
        self.own_server().go_on()

    def _strike(self, rank: int, deed: FaultKind, at: SwitchPoint | None, seconds: float = 0.0) -> None:
        if not 0 <= rank < len(self.ledger.ranks):
            raise invalid("rank", f"{rank} is not in [0, {len(self.ledger.ranks) - 1}]")
        crew, supervisor = self._running.crew, self._running.supervisor
        if at is not None:
            self._running.hub.post(partial(supervisor.arm, rank, InjectFault(at, deed, seconds)))
            return
        self.ledger.struck(time.monotonic(), f"{deed.value}:{rank}")
        if deed is FaultKind.KILL:
            crew.kill(rank)
        else:
            crew.stop(rank)
            if seconds > 0:
                crew.go_on_later(rank, seconds)

    def own_server(self) -> ServerProcess:
        """The server that the fleet has started.

        Raises:
            InvalidArgumentError: it uses another one.
        """
        if self._running.server is None:
            raise invalid("server", "it is not the fleet's own: leave it alone")
        return self._running.server
