"""Causes faults in a fleet: kills and stops its processes, and makes ranks misbehave."""

from __future__ import annotations

import time
from signal import Signals

from trimtab_client.exceptions import invalid
from trimtab_tools.simulate.fleet_state import FleetState
from trimtab_tools.simulate.launch import FleetProcesses
from trimtab_tools.simulate.messages import Action, InjectFault, SwitchPoint


class FaultInjector:
    """Causes faults, now or at a point of the next switch. Any thread may use it."""

    def __init__(self, processes: FleetProcesses, state: FleetState) -> None:
        self._processes = processes
        self._state = state
        self._requested = 0

    def kill_rank(self, rank: int, at: SwitchPoint | None = None) -> None:
        """Kill a rank by SIGKILL, now or at a point of the next switch. It is replaced."""
        self._signal(rank, at, Action.KILL_RANK, Signals.SIGKILL)

    def stop_rank(self, rank: int, at: SwitchPoint | None = None, seconds: float = 0.0) -> None:
        """Stop a rank by SIGSTOP, now or at a point of the next switch.

        It goes on after so many seconds; if these are 0, only `resume_rank` has it go on.
        """
        self._signal(rank, at, Action.STOP_RANK, Signals.SIGSTOP, seconds)
        if at is None and seconds > 0:
            self._processes.ranks.resume_later(rank, seconds)

    def resume_rank(self, rank: int) -> None:
        """Let a stopped rank go on, by SIGCONT."""
        self._processes.ranks.signal(rank, Signals.SIGCONT)

    def refuse(self, rank: int) -> None:
        """Have a rank refuse the next offer."""
        self._inject(rank, InjectFault(SwitchPoint.PREPARED, Action.REFUSE))

    def slow(self, rank: int, seconds: float) -> None:
        """Have a rank's next transfer take this much longer."""
        self._inject(rank, InjectFault(SwitchPoint.PREPARED, Action.SLOW, seconds))

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
        self._record(Action.KILL_SERVER.value)
        server.kill()

    def stop_server(self) -> None:
        """Stop the fleet's own server by SIGSTOP, until `resume_server`."""
        server = self._processes.own_server()
        self._record(Action.STOP_SERVER.value)
        server.signal(Signals.SIGSTOP)

    def resume_server(self) -> None:
        """Let a stopped server go on, by SIGCONT."""
        self._processes.own_server().signal(Signals.SIGCONT)

    def _signal(
        self, rank: int, at: SwitchPoint | None, action: Action, number: Signals, seconds: float = 0
    ) -> None:
        """Send a signal to a rank now, or have it send this signal to itself at a point."""
        if at is not None:
            self._inject(rank, InjectFault(at, action, seconds))
            return
        self._check(rank)
        self._record(f"{action.value}:{rank}")
        self._processes.ranks.signal(rank, number)

    def _inject(self, rank: int, fault: InjectFault) -> None:
        self._check(rank)
        self._requested += 1
        self._processes.supervisor.inject(rank, fault)

    def _check(self, rank: int) -> None:
        if not 0 <= rank < len(self._state.ranks):
            raise invalid("rank", f"{rank} is not in [0, {len(self._state.ranks) - 1}]")

    def _record(self, fault: str) -> None:
        self._state.fault_injected(time.monotonic(), fault)
