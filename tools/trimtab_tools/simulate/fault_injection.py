"""Causes faults in a fleet: kills and stops its processes, and makes ranks misbehave."""

from __future__ import annotations

import time

from trimtab_client.exceptions import invalid
from trimtab_tools.simulate.fleet_state import FleetState
from trimtab_tools.simulate.launch import FleetProcesses
from trimtab_tools.simulate.messages import FaultKind, InjectFault, SwitchPoint


class FaultInjector:
    """Causes faults, now or at a point of the next switch. Any thread may use it.

    Args:
        processes: of the fleet.
        state: of the fleet; it records the faults.
    """

    def __init__(self, processes: FleetProcesses, state: FleetState) -> None:
        self._processes = processes
        self._state = state
        self._requested = 0

    def kill_rank(self, rank: int, at: SwitchPoint | None = None) -> None:
        """Kill a rank by SIGKILL, now or at a point of the next switch. It is replaced."""
        if at is not None:
            self._inject(rank, InjectFault(at, FaultKind.KILL))
            return
        self._check(rank)
        self._record(f"{FaultKind.KILL.value}:{rank}")
        self._processes.ranks.kill(rank)

    def stop_rank(self, rank: int, at: SwitchPoint | None = None, seconds: float = 0.0) -> None:
        """Stop a rank by SIGSTOP, now or at a point of the next switch.

        Args:
            rank: which one.
            at: None for now.
            seconds: how long; 0 if `resume_rank` ends it.
        """
        if at is not None:
            self._inject(rank, InjectFault(at, FaultKind.STOP, seconds))
            return
        self._check(rank)
        self._record(f"{FaultKind.STOP.value}:{rank}")
        self._processes.ranks.stop(rank)
        if seconds > 0:
            self._processes.ranks.resume_later(rank, seconds)

    def resume_rank(self, rank: int) -> None:
        """Let a stopped rank go on, by SIGCONT."""
        self._processes.ranks.resume(rank)

    def refuse(self, rank: int) -> None:
        """Have a rank refuse the next offer."""
        self._inject(rank, InjectFault(SwitchPoint.PREPARED, FaultKind.REFUSE))

    def slow(self, rank: int, seconds: float) -> None:
        """Have a rank's next transfer take this much longer."""
        self._inject(rank, InjectFault(SwitchPoint.PREPARED, FaultKind.SLOW, seconds))

    def wait_pending(self, timeout: float) -> None:
        """Wait until the ranks know of all faults to come.

        Raises:
            DeadlineExceededError: it took too long.
        """
        self._state.wait(
            "the ranks to know of all faults",
            lambda: self._state.faults_received >= self._requested or None,
            timeout,
        )

    def kill_server(self) -> None:
        """Kill the fleet's own server by SIGKILL; returns when its process has ended."""
        server = self._processes.own_server()
        self._record("kill-server")
        server.kill()

    def stop_server(self) -> None:
        """Stop the fleet's own server by SIGSTOP, until `resume_server`."""
        server = self._processes.own_server()
        self._record("stop-server")
        server.stop()

    def resume_server(self) -> None:
        """Let a stopped server go on, by SIGCONT."""
        self._processes.own_server().resume()

    def _inject(self, rank: int, fault: InjectFault) -> None:
        self._check(rank)
        self._requested += 1
        self._processes.supervisor.inject(rank, fault)

    def _check(self, rank: int) -> None:
        if not 0 <= rank < len(self._state.ranks):
            raise invalid("rank", f"{rank} is not in [0, {len(self._state.ranks) - 1}]")

    def _record(self, fault: str) -> None:
        self._state.fault_injected(time.monotonic(), fault)
