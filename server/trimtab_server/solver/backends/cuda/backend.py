"""The cuda backend: plans and packs in fused Triton kernels, and leaves the rest to the host."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable

import torch
from torch import Tensor

from trimtab_server.domain.moves import Moves
from trimtab_server.domain.topology import Topology
from trimtab_server.solver.backends.backend import Backend, Fallback, Packing, Replicas, Solved
from trimtab_server.solver.backends.cuda.device import KernelError, require_usable
from trimtab_server.solver.backends.cuda.jobs import Job, PackJob, PlanJob
from trimtab_server.solver.backends.cuda.runner import GraphRunner, PlainRunner, Ran, Runner
from trimtab_server.solver.backends.cuda.shapes import Packs, Plan
from trimtab_server.solver.backends.cuda.starts import Warps
from trimtab_server.solver.backends.reference.backend import Reference
from trimtab_server.solver.budget import Budget
from trimtab_server.solver.settings import Settings

_MOST_RUNNERS = 8
"""Kinds of request whose buffers and graph are kept: those of a few models, warm."""

_TURNS = threading.Lock()
"""Requests of all threads take turns: a runner's buffers are one request's, and Triton's
interpreter patches its module while it runs. The device would not do two faster."""


class Cuda:
    """Triton kernels on a CUDA device; see `Backend`.

    `plan` and `pack` run on the device, one CUDA graph a request. `replicate`,
    `improve`, `balance` and `moves` are left to the host's best backend: they take it
    well under a millisecond, and the host needs their answers anyway. It also
    answers what is beyond the kernels, and what fails.

    Args:
        device: CUDA; or the CPU, in Triton's interpreter.
        on_fallback: told of requests that the host's backend answers instead.
        warps: overrides the choice of warps, to measure it.

    Raises:
        RuntimeError: the device cannot be used.
    """

    name = "cuda"

    def __init__(
        self, device: torch.device, on_fallback: Fallback, warps: Warps | None = None
    ) -> None:
        require_usable(device)
        self._device, self._on_fallback, self._warps = device, on_fallback, warps or Warps()
        self._host = _host()
        self._runners: OrderedDict[Hashable, Runner] = OrderedDict()

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
            lambda: PackJob(packs, settings, self._device, self._warps),
            inputs,
            settings.seed,
        )
        if ran is None:
            return self._host.pack(weight_XI, num_packs, group_XI, settings)
        return Packing(*ran.outputs, ran.iterations, ran.swaps)

    def plan(self, load_LE: Tensor, topology: Topology, settings: Settings) -> Solved:
        """See `Backend`."""
        plan = Plan.of(*load_LE.shape, topology, settings)
        ran = self._ran(
            (plan, settings.tolerance),
            plan.beyond(),
            lambda: PlanJob(plan, settings, self._device, self._warps),
            (load_LE,),
            settings.seed,
        )
        if ran is None:
            return self._host.plan(load_LE, topology, settings)
        return Solved(*ran.outputs, ran.iterations, ran.swaps)

    def improve(
        self, start_LR: Tensor, load_LE: Tensor, topology: Topology, budget: Budget, top_k: int
    ) -> Solved:
        """See `Backend`."""
        return self._host.improve(start_LR, load_LE, topology, budget, top_k)

    def balance(self, phy2log_LR: Tensor, load_LE: Tensor, num_gpus: int) -> tuple[Tensor, Tensor]:
        """See `Backend`."""
        return self._host.balance(phy2log_LR, load_LE, num_gpus)

    def moves(self, current_LR: Tensor, new_LR: Tensor, num_experts: int, num_gpus: int) -> Moves:
        """See `Backend`."""
        return self._host.moves(current_LR, new_LR, num_experts, num_gpus)

    def _ran(
        self,
        kind: Hashable,
        beyond: str | None,
        job: Callable[[], Job],
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
                return self._runner(key, job, inputs[0].device.type == "cpu").run(inputs, seed)
        except KernelError as error:
            self._runners.pop(key, None)
            self._on_fallback(self.name, "error", str(error) or type(error).__name__)
            return None

    def _runner(self, key: Hashable, job: Callable[[], Job], from_host: bool) -> Runner:
        runner = self._runners.pop(key, None)
        if runner is None:
            while len(self._runners) >= _MOST_RUNNERS:
                self._runners.popitem(last=False)
            runner = (
                PlainRunner(job())
                if self._device.type == "cpu"
                else GraphRunner(job(), self._device, from_host)
            )
        self._runners[key] = runner
        return runner


def _host() -> Backend:
    """The host's best backend."""
    try:
        from trimtab_server.solver.backends.cpu.backend import Cpu
    except (ImportError, RuntimeError):
        return Reference()
    return Cpu()
