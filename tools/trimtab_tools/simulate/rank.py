"""A rank: a process with one GPU's share of the weights, its session, and its steps.

    python -m trimtab_tools.simulate.rank FD

FD is its end of the pipe to the fleet, which tells it all else.
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
from trimtab_client.worker.events import StateEvent
from trimtab_client.worker.offer import Flip, SwitchOffer
from trimtab_client.worker.options import Scope, WorkerOptions
from trimtab_client.worker.session import WorkerSession
from trimtab_tools.conformance.reference import NumpyEngine
from trimtab_tools.simulate.checkpoint import Checkpoint
from trimtab_tools.simulate.rank_pipe import RankPipe, GroupBrokenError
from trimtab_tools.simulate.forward_pass import ForwardPass
from trimtab_tools.simulate.messages import (
    InjectFault,
    FaultKind,
    Join,
    SwitchPoint,
    Progress,
    Ready,
    Setup,
    LeftGroup,
)
from trimtab_tools.simulate.weight_reads import WeightReader, WeightServer
from trimtab_tools.simulate.fault_points import FaultPoints
from trimtab_tools.simulate.transport import FleetTransport
from trimtab_tools.simulate.windows import WindowCounter, moves_of

_QUICK = RetryPolicy(initial_backoff=0.02, max_backoff=0.3)
_PROGRESS_S = 0.1
_WRITTEN = ("in_force", "flipped")


class Rank:
    """One worker, over all groups that its process is in.

    Args:
        pipe: to the fleet.
        setup: who it is.
    """

    engine: NumpyEngine
    session: WorkerSession

    def __init__(self, pipe: Connection[Any, Any], setup: Setup) -> None:
        self.setup = setup
        self.options = options = setup.options
        self.checkpoint = Checkpoint(options.seed, options.hidden)
        self.points = FaultPoints(self._struck)
        self.control = RankPipe(pipe, self.points.arm)
        self.reader = WeightReader(options.hidden)
        self.transport = FleetTransport(options, self.reader, self.control)
        self._maps = options.untouched
        self._tokens = self._wrong = self._moves = 0
        self._tally = WindowCounter(options.steps_per_window, options.num_windows)
        self._progress_at = 0.0
        WeightServer(setup.address, lambda layer, slot: self.engine.weights_in(layer, slot))
        self.control.send(Ready())

    def run(self) -> None:
        """Serve in one group after another, until the fleet ends."""
        first = self.control.next_group()
        if first is None:
            return
        self._load(first)
        group: Join | None = first
        while group is not None:
            self.reader.regroup(group.addresses)
            try:
                self._serve(group)
            except GroupBrokenError:
                self._report()
                version, phy2log_LR = self.session.in_force, self.engine.phy2log()
                self.control.send(LeftGroup(self.control.step, version, phy2log_LR))
            group = self.control.next_group()
            if group is not None:
                self.session.regroup(group.group, self._maps)
        self.session.close("the simulation ends")
        self.engine.close()

    def make_engine(self, placement: Placement) -> NumpyEngine:
        """The adapter, loaded with what a placement says."""
        return NumpyEngine(
            (self.setup.index,),
            placement,
            self.checkpoint.weights,
            self.transport,
            transfer=self.options.transfer,
            staging_slots=self.options.slots_per_rank,
        )

    def _load(self, group: Join) -> None:
        setup, options = self.setup, self.options
        self._maps = Placement.of(group.phy2log, options.experts, options.ranks)
        self.engine = self.make_engine(self._maps)
        self.forward = ForwardPass(
            options, setup.index, self.checkpoint, self.engine.compute, self.control.exchange
        )
        self.session = WorkerSession(
            setup.target,
            WorkerOptions(
                deployment=options.deployment,
                worker=f"rank {setup.index}",
                topology=options.topology,
                placement=self._maps,
                scope=Scope.LOCAL,
                bytes_per_expert=options.bytes_per_expert,
                gpus=(setup.index,),
                group_id=group.group,
                transfer=options.transfer,
                staging_slots=options.slots_per_rank,
            ),
            on_offer=self._on_offer,
            on_abort=self._on_abort,
            on_state=self._on_state,
            barrier=self._barrier,
            barrier_every=options.barrier_every,
            retry=_QUICK,
        )

    # The engine's thread.

    def _serve(self, group: Join) -> None:
        """Step after step, until a collective says that the group is broken."""
        step, begun = group.step, time.monotonic()
        while True:
            self.control.step = step
            flip = self.session.at_step_boundary(step)
            if flip is not None:
                self._flip(flip)
            done = self.forward.step(step, self._maps)
            self.session.record(done.counts_LS, step, step, per_slot=True)
            self._tokens += done.tokens
            self._wrong += done.wrong
            if step == group.step:
                self.control.tell("serving", group=group.group)
            now = time.monotonic()
            ended = self._tally.add(step, done.counts_LS, self._experts(), self.options.experts)
            if ended is not None or done.example or now >= self._progress_at:
                self._report(done.example)
            if ended is not None:
                self.control.send(ended)
            step += 1
            begun = max(now, begun + self.options.step_seconds)
            time.sleep(begun - now)

    def _flip(self, flip: Flip) -> None:
        self.points.reached(SwitchPoint.FLIPPING)
        self.engine.flip(flip)
        # By what the engine has come to, not by what it was to become.
        options, before_LS = self.options, self._experts()
        self._maps = Placement.of(self.engine.phy2log(), options.experts, options.ranks)
        self._moves += moves_of(before_LS, self._experts())
        self.session.applied()

    def _experts(self) -> IntArray:
        """The expert in each slot of this rank, by its maps: int32 [L, S]."""
        slots, index = self.options.slots_per_rank, self.setup.index
        return self._maps.phy2log[:, index * slots : (index + 1) * slots]

    def _barrier(self, values: Sequence[int]) -> Sequence[int]:
        if values[1]:
            self.points.reached(SwitchPoint.ARMED)
        own = np.array(values, np.int64).tobytes()
        parts = self.control.exchange("barrier", [own] * self.options.ranks)
        lowest: list[int] = np.frombuffer(b"".join(parts), np.int64).reshape(-1, 2).min(0).tolist()
        return lowest

    def _report(self, example: str = "") -> None:
        self._progress_at = time.monotonic() + _PROGRESS_S
        step, moved = self.control.step, self.transport.moved
        progress = Progress(step, self._tokens, self._wrong, moved, self._moves, example)
        self.control.send(progress)

    # The session's thread; `_on_offer` of a collective transfer: the engine's.

    def _on_offer(self, offer: SwitchOffer) -> Future[bool]:
        self.control.tell("accepted", version=offer.version)
        self.points.reached(SwitchPoint.ACCEPTED)
        begun, ended = self.engine.on_offer(offer), Future[bool]()
        if begun is None:
            self._transferred(None, ended)
        else:
            begun.add_done_callback(lambda transfer: self._transferred(transfer, ended))
        return ended

    def _transferred(self, transfer: Future[Any] | None, ended: Future[bool]) -> None:
        """Also a rank that refuses has taken part, since a collective transfer takes all."""
        failure = None if transfer is None else transfer.exception()
        if failure is not None:
            ended.set_exception(failure)
            return
        struck = self.points.reached(SwitchPoint.PREPARED)
        accepts = all(fault.deed is not FaultKind.REFUSE for fault in struck)
        delay = sum(fault.seconds for fault in struck)
        if delay > 0:
            timer = Timer(delay, ended.set_result, [accepts])
            timer.daemon = True
            timer.start()
        else:
            ended.set_result(accepts)

    def _on_abort(self, offer: SwitchOffer) -> None:
        self.engine.on_abort(offer)
        self.control.tell("discarded", version=offer.version)

    def _on_state(self, event: StateEvent) -> None:
        if event.kind in _WRITTEN and self.setup.history is not None:
            values = {"kind": event.kind, "deployment": self.options.deployment, **event.values}
            append_line(self.setup.history, values)
        self.control.tell(event.kind, **event.values)

    def _struck(self, fault: InjectFault) -> None:
        self.control.tell("struck", **vars(fault))


def append_line(history: Path, values: dict[str, Any]) -> None:
    """Add a line to a history; lines of other processes stay whole."""
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
