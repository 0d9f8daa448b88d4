"""Forms the group of the ranks, and forms it again when a rank has died."""

from __future__ import annotations

import uuid

import numpy as np

from trimtab_client.placement import IntArray
from trimtab_tools.simulate import messages
from trimtab_tools.simulate.collective_server import CollectiveServer
from trimtab_tools.simulate.errors import FleetError
from trimtab_tools.simulate.fleet_state import FleetState, RankStatus
from trimtab_tools.simulate.group import Group
from trimtab_tools.simulate.options import FleetOptions
from trimtab_tools.simulate.rank_processes import RankProcesses


class Supervisor:
    """Does what the launcher of an inference engine does. The listener of a `CollectiveServer`.

    It records in the fleet's state what happens.
    """

    def __init__(self, options: FleetOptions, ranks: RankProcesses, state: FleetState) -> None:
        self._options = options
        self._ranks = ranks
        self._state = state
        self._waiting: dict[int, messages.LeftGroup | None] = {}
        self._pending_faults: list[tuple[int, messages.InjectFault]] = []
        self._target = ""
        self._ending = False
        self._collectives = CollectiveServer(self)

    # Any thread.

    def start_ranks(self) -> None:
        """Start the processes of all ranks."""
        for rank in range(self._options.ranks):
            self._collectives.post(self._collectives.add, rank, self._ranks.start(rank))

    def begin(self, target: str) -> None:
        """Have the ranks serve, with the server at this address."""
        self._collectives.post(self._begin, target)

    def inject(self, rank: int, fault: messages.InjectFault) -> None:
        """Have a rank, or the one that replaces it, cause a fault in itself."""
        self._collectives.post(self._inject, rank, fault)

    def end(self) -> None:
        """Have all ranks stop before the same collective, close their sessions, and exit."""
        self._collectives.post(self._end)

    def close(self) -> None:
        """End the thread and the pipes to the ranks."""
        self._collectives.close()

    # The thread of the collective server, whose listener this is.

    def received(self, member: int, message: messages.FromRank) -> None:
        """See `Listener`."""
        match message:
            case messages.Ready():
                self._wait_for_group(member, None)
                for rank, fault in self._pending_faults:
                    if rank == member:
                        self._collectives.send(member, fault)
            case messages.LeftGroup():
                self._wait_for_group(member, message)
            case messages.Progress():
                self._state.rank_progressed(member, message)
            case messages.WindowCounts():
                self._state.window_counted(member, message)
            case messages.RankEvent(kind="fault_injected", at=at, values={"fault": fault}):
                self._fault_injected(member, at, fault)
            case messages.RankEvent():
                self._state.rank_event(member, message)

    def lost(self, member: int) -> None:
        """See `Listener`."""
        self._waiting.pop(member, None)
        code, last_words = self._ranks.wait(member)
        self._state.rank_lost(member)
        if self._ending:
            self._state.set_status(member, RankStatus.GONE)
            self._form_or_leave()
        elif code < 0:
            self._collectives.add(member, self._ranks.start(member))
            if self._target:
                self._send_setup(member)
        else:
            self._state.set_status(member, RankStatus.GONE)
            self._state.fail(f"rank {member} ended with code {code}: {last_words}")

    def failed(self, error: Exception) -> None:
        """See `Listener`."""
        self._state.fail(f"{type(error).__name__}: {error}")

    def _begin(self, target: str) -> None:
        self._target = target
        for rank in range(self._options.ranks):
            self._send_setup(rank)

    def _send_setup(self, rank: int) -> None:
        self._collectives.send(rank, self._ranks.setup(rank, self._target))

    def _inject(self, rank: int, fault: messages.InjectFault) -> None:
        self._pending_faults.append((rank, fault))
        if self._state.ranks[rank].status is not RankStatus.STARTING:
            self._collectives.send(rank, fault)

    def _fault_injected(self, rank: int, at: float, fault: messages.InjectFault) -> None:
        self._pending_faults.remove((rank, fault))
        self._state.fault_injected(at, f"{fault.action.value}:{rank}@{fault.point.value}")
        if fault.action is messages.Action.STOP_RANK and fault.seconds > 0:
            self._ranks.resume_later(rank, fault.seconds)

    def _end(self) -> None:
        self._ending = True
        self._collectives.break_up("the simulation ends")
        self._form_or_leave()

    def _wait_for_group(self, rank: int, left: messages.LeftGroup | None) -> None:
        self._waiting[rank] = left
        self._state.set_status(rank, RankStatus.READY)
        self._form_or_leave()

    def _form_or_leave(self) -> None:
        """Once all ranks wait, form a group, or have them leave at the end."""
        ranks = enumerate(self._state.ranks)
        alive = [rank for rank, state in ranks if state.status is not RankStatus.GONE]
        if any(rank not in self._waiting for rank in alive):
            return
        if self._ending:
            for rank in alive:
                self._collectives.send(rank, messages.Leave())
        elif len(alive) == self._options.ranks:
            self._form()

    def _form(self) -> None:
        survivors = {rank: left for rank, left in self._waiting.items() if left is not None}
        step, phy2log_LR = group_start(survivors) or (0, self._options.untouched.phy2log)
        group = Group(uuid.uuid4().hex, range(self._options.ranks))
        self._collectives.form(group)
        self._state.group_formed(group.name)
        join = messages.Join(group.name, step, phy2log_LR, tuple(self._ranks.addresses))
        for rank in list(self._waiting):
            self._collectives.send(rank, join)
        self._waiting.clear()


def group_start(survivors: dict[int, messages.LeftGroup]) -> tuple[int, IntArray] | None:
    """The step and the placement at which a new group begins; None if there is no survivor.

    Raises:
        FleetError: the survivors differ, so the barrier or the switch has failed.
    """
    if not survivors:
        return None
    first, *others = survivors.values()
    for other in others:
        if first.step != other.step or not np.array_equal(first.phy2log, other.phy2log):
            seen = {rank: (each.step, str(each.version)) for rank, each in survivors.items()}
            raise FleetError(f"the survivors of a group differ in (step, version): {seen}")
    return first.step, first.phy2log
