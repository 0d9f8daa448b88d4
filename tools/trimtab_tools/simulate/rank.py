"""A rank: a process with one GPU's share of the weights, its session, and its steps.

    python -m trimtab_tools.simulate.rank FD

FD is the file descriptor of its end of the pipe to the fleet, which sends it everything else.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Sequence
from concurrent.futures import Future
from multiprocessing.connection import Connection
from pathlib import Path
from threading import Timer
from typing import Any

import numpy as np

from trimtab_client.placement import IntArray, Placement
from trimtab_client.retry import RetryPolicy
from trimtab_client.worker.offer import Flip, StateEvent, SwitchOffer
from trimtab_client.worker.options import WorkerOptions
from trimtab_client.worker.session import WorkerSession
from trimtab_protocol.messages import Scope
from trimtab_tools.conformance.reference import NumpyEngine
from trimtab_tools.simulate import messages
from trimtab_tools.simulate.checkpoint import Checkpoint
from trimtab_tools.simulate.fault_points import FaultPoints
from trimtab_tools.simulate.forward_pass import ForwardPass, StepResult
from trimtab_tools.simulate.rank_pipe import GroupBrokenError, RankPipe
from trimtab_tools.simulate.transport import FleetTransport
from trimtab_tools.simulate.weight_reads import WeightReader, WeightServer
from trimtab_tools.simulate.windows import WindowCounter, count_moves

_QUICK = RetryPolicy(initial_backoff=0.02, max_backoff=0.3)
_PROGRESS_S = 0.1
_HISTORY_EVENTS = ("in_force", "flipped")


class Rank:
    """One worker, over all groups that its process is in. `setup` came first on its pipe."""

    engine_type: type[NumpyEngine] = NumpyEngine
    engine: NumpyEngine
    session: WorkerSession

    def __init__(self, pipe: Connection[Any, Any], setup: messages.Setup) -> None:
        self.setup = setup
        self.options = options = setup.options
        self.checkpoint = Checkpoint(options.seed, options.hidden)
        self.fault_points = FaultPoints(
            lambda fault: self.pipe.report("fault_injected", fault=fault)
        )
        self.pipe = RankPipe(pipe, self._add_fault)
        self.reader = WeightReader(options.hidden)
        self.transport = FleetTransport(options, self.reader, self.pipe)
        self._maps = options.untouched
        self._tokens = self._wrong = self._moves = 0
        self._window_counter = WindowCounter(options.steps_per_window, options.num_windows)
        self._progress_due = 0.0
        WeightServer(setup.address, lambda layer, slot: self.engine.weights_in(layer, slot))
        self.pipe.send(messages.Ready())

    def run(self) -> None:
        """Serve in one group after another, until the simulation ends."""
        first = self.pipe.next_group()
        if first is None:
            return
        self._load(first)
        group: messages.Join | None = first
        while group is not None:
            self.reader.regroup(group.addresses)
            try:
                self._serve(group)
            except GroupBrokenError:
                self._report_progress()
                version, phy2log_LR = self.session.in_force, self.engine.phy2log()
                self.pipe.send(messages.LeftGroup(self.pipe.step, version, phy2log_LR))
            group = self.pipe.next_group()
            if group is not None:
                self.session.regroup(group.group, self._maps)
        self.session.close("the simulation ends")
        self.engine.close()

    def _load(self, group: messages.Join) -> None:
        """Load the weights by which the group begins, and connect to the server."""
        options = self.options
        self._maps = Placement.of(group.phy2log, options.experts, options.ranks)
        self.engine = self.engine_type(
            (self.setup.index,),
            self._maps,
            self.checkpoint.weights,
            self.transport,
            transfer=options.transfer,
            staging_slots=options.slots_per_rank,
        )
        self.forward_pass = ForwardPass(
            options, self.setup.index, self.checkpoint, self.engine.compute, self.pipe.exchange
        )
        self.session = WorkerSession(
            self.setup.target,
            self._worker_options(group.group),
            on_offer=self._on_offer,
            on_abort=self._on_abort,
            on_state=self._on_state,
            barrier=self._barrier,
            barrier_every=options.barrier_every,
            retry=_QUICK,
        )

    def _worker_options(self, group: str) -> WorkerOptions:
        options, index = self.options, self.setup.index
        return WorkerOptions(
            deployment=options.deployment,
            worker=f"rank {index}",
            topology=options.topology,
            placement=self._maps,
            scope=Scope.LOCAL,
            bytes_per_expert=options.bytes_per_expert,
            gpus=(index,),
            group_id=group,
            transfer=options.transfer,
            staging_slots=options.slots_per_rank,
        )

    # The engine's thread.

    def _serve(self, group: messages.Join) -> None:
        """Do step after step, until a collective says that the group is broken."""
        step, begun = group.step, time.monotonic()
        while True:
            self.pipe.step = step
            flip = self.session.at_step_boundary(step)
            if flip is not None:
                self._flip(flip)
            result = self.forward_pass.step(step, self._maps)
            self.session.record(result.counts_LS, step, step, per_slot=True)
            if step == group.step:
                self.pipe.report("serving", group=group.group)
            now = time.monotonic()
            self._count(step, result, now)
            step += 1
            begun = max(now, begun + self.options.step_seconds)
            time.sleep(begun - now)

    def _count(self, step: int, result: StepResult, now: float) -> None:
        """Count a step's tokens, and report them when it is time."""
        self._tokens += result.tokens
        self._wrong += result.wrong
        experts = self.options.experts
        window = self._window_counter.add(step, result.counts_LS, self._own_experts(), experts)
        if window is not None or result.example or now >= self._progress_due:
            self._report_progress(result.example)
        if window is not None:
            self.pipe.send(window)

    def _flip(self, flip: Flip) -> None:
        self.fault_points.reached(messages.SwitchPoint.FLIPPING)
        self.engine.flip(flip)
        # From the engine itself, and not from the flip: this shows what the engine has done.
        options, before_LS = self.options, self._own_experts()
        self._maps = Placement.of(self.engine.phy2log(), options.experts, options.ranks)
        self._moves += count_moves(before_LS, self._own_experts())
        self.session.applied()

    def _own_experts(self) -> IntArray:
        """The expert in each slot of this rank, by its maps: int32 [L, S]."""
        slots, index = self.options.slots_per_rank, self.setup.index
        return self._maps.phy2log[:, index * slots : (index + 1) * slots]

    def _barrier(self, values: Sequence[int]) -> Sequence[int]:
        if values[1]:
            self.fault_points.reached(messages.SwitchPoint.ARMED)
        own = np.array(values, np.int64).tobytes()
        parts = self.pipe.exchange("barrier", [own] * self.options.ranks)
        lowest: list[int] = np.frombuffer(b"".join(parts), np.int64).reshape(-1, 2).min(0).tolist()
        return lowest

    def _report_progress(self, example: str = "") -> None:
        self._progress_due = time.monotonic() + _PROGRESS_S
        moved, moves = self.transport.moved, self._moves
        done = self.pipe.step, self._tokens, self._wrong, moved, moves
        self.pipe.send(messages.Progress(*done, example))

    # The session's thread; `_on_offer` of a collective transfer: the engine's.

    def _on_offer(self, offer: SwitchOffer) -> Future[bool]:
        self.pipe.report("accepted", version=offer.version)
        self.fault_points.reached(messages.SwitchPoint.ACCEPTED)
        transfer, prepared = self.engine.on_offer(offer), Future[bool]()
        if transfer is None:
            self._answer(None, prepared)
        else:
            transfer.add_done_callback(lambda ended: self._answer(ended, prepared))
        return prepared

    def _answer(self, transfer: Future[Any] | None, prepared: Future[bool]) -> None:
        """Answer an offer after its transfer. A rank that refuses has still taken part in it."""
        failure = None if transfer is None else transfer.exception()
        if failure is not None:
            prepared.set_exception(failure)
            return
        faults = self.fault_points.reached(messages.SwitchPoint.PREPARED)
        accepts = all(fault.action is not messages.Action.REFUSE for fault in faults)
        delay = sum(fault.seconds for fault in faults)
        if delay > 0:
            timer = Timer(delay, prepared.set_result, [accepts])
            timer.daemon = True
            timer.start()
        else:
            prepared.set_result(accepts)

    def _on_abort(self, offer: SwitchOffer) -> None:
        self.engine.on_abort(offer)
        self.pipe.report("discarded", version=offer.version)

    def _on_state(self, event: StateEvent) -> None:
        if event.kind in _HISTORY_EVENTS and self.setup.history is not None:
            values = {"kind": event.kind, "deployment": self.options.deployment, **event.values}
            append_line(self.setup.history, values)
        self.pipe.report(event.kind, **event.values)

    def _add_fault(self, fault: messages.InjectFault) -> None:
        self.fault_points.add(fault)
        self.pipe.report("fault_pending")


def append_line(history: Path, values: dict[str, Any]) -> None:
    """Add a line to a history. Lines of several processes do not mix."""
    line = json.dumps(values, default=bytes.hex).encode() + b"\n"
    file = os.open(history, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(file, line)
    finally:
        os.close(file)


def main(make: type[Rank] = Rank) -> None:
    """Run the process of a rank."""
    pipe: Connection[Any, Any] = Connection(int(sys.argv[1]))
    make(pipe, pipe.recv()).run()


if __name__ == "__main__":
    main()
