"""The cuda backend: plans and packs in fused Triton kernels, and leaves the rest to the host."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Hashable, Mapping
from contextlib import nullcontext
from functools import partial

import torch
from torch import Tensor

from trimtab_server.domain.moves import Moves
from trimtab_server.domain.topology import Topology
from trimtab_server.solver.backends.backend import Backend, Fallback, Packing, Replicas, Solved
from trimtab_server.solver.backends.cuda.backoff import Backoff
from trimtab_server.solver.backends.cuda.device import require_usable
from trimtab_server.solver.backends.cuda.jobs import Job, PackJob, PlanJob
from trimtab_server.solver.backends.cuda.runner import GraphRunner, PlainRunner, Ran, Runner
from trimtab_server.solver.backends.cuda.runners import Runners, free_bytes
from trimtab_server.solver.backends.cuda.shapes import Packs, Plan
from trimtab_server.solver.backends.cuda.warps import Warps
from trimtab_server.solver.backends.reference.backend import Reference
from trimtab_server.solver.budget import Budget
from trimtab_server.solver.settings import Settings

JobOn = Callable[[torch.device], Job]
"""Makes the job of a kind of request on a device; on "meta", to see what it takes."""

_TURNS = threading.Lock()
"""Requests of all threads take turns, and so does the capture of a graph, which the use of
its stream by another runner would spoil: a runner's buffers are one request's, and Triton's
interpreter patches its module while it runs. The device would not do two faster."""

_MOST_COMPILING = 4
"""Kinds of request that wait for the compiler; further ones ask again when they come again."""

_COMPILING = threading.Lock()
"""One kind of request is compiled and captured at a time."""


class Cuda:
    """Triton kernels on a CUDA device; see `Backend`.

    `plan` and `pack` run on the device, one CUDA graph a request. The rest is left to
    the host's best backend: it takes that a millisecond at most, and the host needs the
    answers anyway. It also answers what is beyond the kernels, and what fails. A new
    kind of request takes seconds to compile.

    Args:
        device: CUDA; or the CPU, in Triton's interpreter.
        on_fallback: told of requests that the host's backend answers instead.
        patient: whether requests wait for their kernels to be compiled; if not, the
            host answers meanwhile.
        warps: overrides the choice of warps, to measure it.
        clock: seconds that only ever grow.

    Raises:
        RuntimeError: the device cannot be used.
    """

    name = "cuda"

    def __init__(
        self,
        device: torch.device,
        on_fallback: Fallback,
        patient: bool = True,
        warps: Warps | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        require_usable(device)
        self._device, self._on_fallback, self._warps = device, on_fallback, warps or Warps()
        self._patient, self._interpreted = patient, device.type == "cpu"
        self._host = _host()
        free = (lambda: sys.maxsize) if self._interpreted else partial(free_bytes, device)
        self._runners, self._backoff = Runners(free), Backoff(clock)
        self._compiling: dict[Hashable, threading.Thread] = {}

    @property
    def host(self) -> Backend:
        """See `Backend`."""
        return self._host

    @property
    def kinds(self) -> Mapping[str, int]:
        """See `Backend`."""
        return {
            "ready": len(self._runners),
            "compiling": len(self._compiling),
            "failing": len(self._backoff),
        }

    def replicate(self, load_XE: Tensor, num_replicas: int, most: int) -> Replicas:
        """See `Backend`."""
        return self._host.replicate(load_XE, num_replicas, most)

    def pack(
        self, weight_XI: Tensor, num_packs: int, group_XI: Tensor | None, settings: Settings
    ) -> Packing:
        """See `Backend`."""
        rows, items = weight_XI.shape
        groups = 0 if group_XI is None else items
        packs = Packs.of(rows, items, num_packs, groups, settings)
        inputs = (weight_XI,) if group_XI is None else (weight_XI, group_XI)
        ran = self._ran(
            (packs, settings.tolerance),
            packs.beyond(),
            lambda device: PackJob(packs, settings, device, self._warps),
            inputs,
            settings.seed,
        )
        if ran is None:
            return self._host.pack(weight_XI, num_packs, group_XI, settings)
        pack_index_XI, rank_XI = ran.outputs
        return Packing(pack_index_XI, rank_XI, ran.iterations, ran.swaps)

    def plan(self, load_LE: Tensor, topology: Topology, settings: Settings) -> Solved:
        """See `Backend`."""
        layers, experts = load_LE.shape
        plan = Plan.of(layers, experts, topology, settings)
        ran = self._ran(
            (plan, settings.tolerance),
            plan.beyond(),
            lambda device: PlanJob(plan, settings, device, self._warps),
            (load_LE,),
            settings.seed,
        )
        if ran is None:
            return self._host.plan(load_LE, topology, settings)
        (phy2log_LR,) = ran.outputs
        return Solved(phy2log_LR, ran.iterations, ran.swaps)

    def improve(
        self, start_LR: Tensor, load_LE: Tensor, topology: Topology, budget: Budget, top_k: int
    ) -> Solved:
        """See `Backend`."""
        return self._host.improve(start_LR, load_LE, topology, budget, top_k)

    def bound(self, load_LE: Tensor, topology: Topology) -> Tensor:
        """See `Backend`."""
        return self._host.bound(load_LE, topology)

    def balance(self, phy2log_LR: Tensor, load_LE: Tensor, num_gpus: int) -> tuple[Tensor, Tensor]:
        """See `Backend`."""
        return self._host.balance(phy2log_LR, load_LE, num_gpus)

    def moves(self, current_LR: Tensor, new_LR: Tensor, num_experts: int, num_gpus: int) -> Moves:
        """See `Backend`."""
        return self._host.moves(current_LR, new_LR, num_experts, num_gpus)

    def align(
        self,
        new_LR: Tensor,
        current_LR: Tensor,
        num_experts: int,
        num_gpus: int,
        num_nodes: int,
    ) -> Tensor:
        """See `Backend`."""
        return self._host.align(new_LR, current_LR, num_experts, num_gpus, num_nodes)

    def slot_maps(self, phy2log_LR: Tensor, num_experts: int) -> tuple[Tensor, Tensor]:
        """See `Backend`."""
        return self._host.slot_maps(phy2log_LR, num_experts)

    def settle(self) -> None:
        """Wait until nothing is being compiled."""
        for thread in list(self._compiling.values()):
            thread.join()

    def _ran(
        self,
        kind: Hashable,
        beyond: str | None,
        job: JobOn,
        inputs: tuple[Tensor, ...],
        seed: int,
    ) -> Ran | None:
        """Run on the device; None: it did not, and the hook has been told why."""
        if beyond is not None:
            self._on_fallback(self.name, "shape", beyond)
            return None
        key = kind, inputs[0].device.type
        try:
            with _TURNS:
                runner = self._runners.get(key)
                if runner is not None:
                    return runner.run(inputs, seed)
                why = self._backoff.waiting(key)
            if why is not None:
                self._on_fallback(self.name, "backoff", why)
                return None
            if self._patient:
                return self._compiled(key, job, inputs, seed)
            self._compile_meanwhile(key, job, inputs, seed)
        except Exception as error:  # noqa: BLE001 - compilers, drivers, disks: the host can still
            self._failed(key, error)
        return None

    def _compile_meanwhile(
        self, key: Hashable, job: JobOn, inputs: tuple[Tensor, ...], seed: int
    ) -> None:
        def compile_it() -> None:
            try:
                if ready is not None:
                    torch.cuda.current_stream(there).wait_event(ready)
                self._compiled(key, job, mine, seed)
            except Exception as error:  # noqa: BLE001 - as above
                self._failed(key, error)
            finally:
                with _TURNS:
                    self._compiling.pop(key, None)

        self._on_fallback(self.name, "cold", f"compiling for {key}")
        with _TURNS:
            if key in self._compiling or len(self._compiling) >= _MOST_COMPILING:
                return
            # The caller may go on to change its tensors; and the copies are made on the
            # caller's stream, for which no other thread's stream waits by itself.
            mine = tuple(value.clone() for value in inputs)
            there = inputs[0].device
            ready = None
            if there.type != "cpu":
                ready = torch.cuda.current_stream(there).record_event()
            thread = threading.Thread(target=compile_it, name="trimtab-compile", daemon=True)
            thread.start()
            self._compiling[key] = thread

    def _compiled(self, key: Hashable, job: JobOn, inputs: tuple[Tensor, ...], seed: int) -> Ran:
        """Compile for a kind of request, by carrying out the first."""
        with _COMPILING:
            with _TURNS:
                runner = self._runners.get(key)
                if runner is not None:  # Another thread asked for the same meanwhile.
                    return runner.run(inputs, seed)
                self._runners.make_room(job(torch.device("meta")).nbytes)
            # On a GPU others may go on using what is compiled already.
            with _TURNS if self._interpreted else nullcontext():
                runner = self._runner(job(self._device), inputs)
                ran = runner.first(inputs, seed)
            with _TURNS:
                runner.capture()
                self._runners.keep(key, runner)
                self._backoff.succeeded(key)
        return ran

    def _runner(self, job: Job, inputs: tuple[Tensor, ...]) -> Runner:
        if self._interpreted:
            return PlainRunner(job)
        return GraphRunner(job, self._device, inputs[0].device.type == "cpu")

    def _failed(self, key: Hashable, error: Exception) -> None:
        why = str(error) or type(error).__name__
        with _TURNS:
            self._runners.drop(key)
            self._backoff.failed(key, why)
        self._on_fallback(self.name, "error", why)


def _host() -> Backend:
    """The host's best backend."""
    try:
        from trimtab_server.solver.backends.cpu.backend import Cpu
    except (ImportError, RuntimeError):
        return Reference()
    return Cpu()
