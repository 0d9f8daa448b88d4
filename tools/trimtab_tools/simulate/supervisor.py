"""Forms the group of the ranks, and forms it again when one has died."""

from __future__ import annotations

import uuid

import numpy as np

from trimtab_client.placement import IntArray
from trimtab_tools.simulate.rank_processes import RankProcesses
from trimtab_tools.simulate.errors import FleetError
from trimtab_tools.simulate.group import Group
from trimtab_tools.simulate.collective_server import CollectiveServer
from trimtab_tools.simulate.fleet_state import FleetState, Status
from trimtab_tools.simulate.messages import (
    InjectFault,
    WindowCounts,
    FaultKind,
    FromRank,
    Join,
    Leave,
    Progress,
    Ready,
    LeftGroup,
    RankEvent,
)
from trimtab_tools.simulate.options import FleetOptions


class Supervisor:
    """What an engine's own launcher does. The hub's `Listener`, and all on the hub's thread.

    Args:
        options: the fleet's.
        crew: the ranks' processes.
        ledger: where it writes what has happened.
    """

    hub: CollectiveServer

    def __init__(self, options: FleetOptions, crew: RankProcesses, ledger: FleetState) -> None:
        self._options = options
        self._crew = crew
        self._ledger = ledger
        self._waiting: dict[int, LeftGroup | None] = {}
        self._armed: list[tuple[int, InjectFault]] = []
        self._target = ""
        self._ending = False

    def begin(self, target: str) -> None:
        """The server is there: tell the ranks where."""
        self._target = target
        for rank in range(self._options.ranks):
            self.hub.send(rank, self._crew.setup(rank, target))

    def end(self) -> None:
        """Have all ranks stop before the same collective, say goodbye, and exit."""
        self._ending = True
        self.hub.break_up("the simulation ends")
        self._go_on()

    def arm(self, rank: int, fault: InjectFault) -> None:
        """Have a rank, or whoever replaces it, do something to itself."""
        self._armed.append((rank, fault))
        if self._ledger.ranks[rank].status is not Status.STARTING:
            self.hub.send(rank, fault)

    # The hub's listener.

    def received(self, member: int, message: FromRank) -> None:
        """See `Listener`."""
        match message:
            case Ready():
                self._waits(member, None)
                for rank, fault in self._armed:
                    if rank == member:
                        self.hub.send(rank, fault)
            case LeftGroup():
                self._waits(member, message)
            case Progress():
                self._ledger.progress(member, message)
            case WindowCounts():
                self._ledger.counted(member, message)
            case RankEvent(kind="struck", at=at, values=values):
                self._struck(member, at, InjectFault(**values))
            case RankEvent():
                self._ledger.told(member, message)

    def lost(self, member: int) -> None:
        """See `Listener`."""
        self._waiting.pop(member, None)
        code, said = self._crew.ended(member)
        self._ledger.lost(member)
        if self._ending:
            self._ledger.status(member, Status.GONE)
            self._go_on()
        elif code < 0:
            self.hub.add(member, self._crew.start(member))
            if self._target:
                self.hub.send(member, self._crew.setup(member, self._target))
        else:
            self._ledger.status(member, Status.GONE)
            self._ledger.fail(f"rank {member} ended with code {code}: {said}")

    def failed(self, error: Exception) -> None:
        """See `Listener`."""
        self._ledger.fail(f"{type(error).__name__}: {error}")

    def _struck(self, rank: int, at: float, fault: InjectFault) -> None:
        self._armed.remove((rank, fault))
        self._ledger.struck(at, f"{fault.deed.value}:{rank}@{fault.point.value}")
        if fault.deed is FaultKind.STOP and fault.seconds > 0:
            self._crew.go_on_later(rank, fault.seconds)

    def _waits(self, rank: int, stopped: LeftGroup | None) -> None:
        self._waiting[rank] = stopped
        self._ledger.status(rank, Status.READY)
        self._go_on()

    def _go_on(self) -> None:
        """Once all ranks wait, form a group, or end."""
        there = [n for n, state in enumerate(self._ledger.ranks) if state.status is not Status.GONE]
        if any(rank not in self._waiting for rank in there):
            return
        if self._ending:
            for rank in there:
                self.hub.send(rank, Leave())
        elif len(there) == self._options.ranks:
            self._form()

    def _form(self) -> None:
        survivors = {rank: each for rank, each in self._waiting.items() if each is not None}
        step, phy2log_LR = start_of(survivors) or (0, self._options.untouched.phy2log)
        group = Group(uuid.uuid4().hex, range(self._options.ranks))
        self.hub.form(group)
        self._ledger.formed(group.name)
        join = Join(group.name, step, phy2log_LR, tuple(self._crew.addresses))
        for rank in list(self._waiting):
            self.hub.send(rank, join)
        self._waiting.clear()


def start_of(survivors: dict[int, LeftGroup]) -> tuple[int, IntArray] | None:
    """Where a new group begins: the survivors' step, and what they serve by; None: without any.

    Raises:
        FleetError: they are not of one mind: the barrier, or the switch, has failed.
    """
    if not survivors:
        return None
    first, *others = survivors.values()
    for other in others:
        same = first.step == other.step and np.array_equal(first.phy2log, other.phy2log)
        if not same:
            seen = {rank: (each.step, str(each.version)) for rank, each in survivors.items()}
            raise FleetError(f"the survivors of a group differ in (step, version): {seen}")
    return first.step, first.phy2log
