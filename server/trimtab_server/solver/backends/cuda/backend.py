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
from trimtab_server.solver.backends.cuda.device import require_usable
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
    ) -> None:
        require_usable(device)
        self._device, self._on_fallback, self._warps = device, on_fallback, warps or Warps()
        self._patient = patient
        self._host = _host()
        self._runners: OrderedDict[Hashable, Runner] = OrderedDict()
        self._compiling: dict[Hashable, threading.Thread] = {}
        # Kinds that are not worth another try, and why.
        self._hopeless: dict[Hashable, str] = {}

    @property
    def host(self) -> Backend:
        """See `Backend`."""
        return self._host

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
        pack_index_XI, rank_XI = ran.outputs
        return Packing(pack_index_XI, rank_XI, ran.iterations, ran.swaps)

    def plan(self, load_LE: Tensor, topology: Topology, settings: Settings) -> Solved:
        """See `Backend`."""
        layers, experts = load_LE.shape
        plan = Plan.of(layers, experts, topology, settings)
        ran = self._ran(
            (plan, settings.tolerance),
            plan.beyond(),
            lambda: PlanJob(plan, settings, self._device, self._warps),
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
                runner = self._runners.get(key)
                if runner is not None:
                    self._runners.move_to_end(key)
                    return runner.run(inputs, seed)
            if self._patient:
                return self._compiled(key, job, inputs, seed)
        except Exception as error:  # noqa: BLE001 - compilers, drivers, disks: the host can still
            self._failed(key, error)
            return None
        if key in self._hopeless:
            self._on_fallback(self.name, "error", self._hopeless[key])
            return None
        self._compile_meanwhile(key, job, inputs, seed)
        return None

    def settle(self) -> None:
        """Wait until nothing is being compiled."""
        for thread in list(self._compiling.values()):
            thread.join()

    def _compile_meanwhile(
        self, key: Hashable, job: Callable[[], Job], inputs: tuple[Tensor, ...], seed: int
    ) -> None:
        def compile_it() -> None:
            try:
                self._compiled(key, job, mine, seed)
            except Exception as error:  # noqa: BLE001 - as above
                self._failed(key, error)
                self._hopeless[key] = f"did not compile before: {error}"
            finally:
                del self._compiling[key]

        self._on_fallback(self.name, "cold", f"compiling for {key}")
        with _TURNS:
            if key in self._compiling or len(self._compiling) >= _MOST_COMPILING:
                return
            # The caller may go on to change its tensors.
            mine = tuple(value.clone() for value in inputs)
            thread = threading.Thread(target=compile_it, name="trimtab-compile", daemon=True)
            self._compiling[key] = thread
            thread.start()

    def _compiled(
        self, key: Hashable, job: Callable[[], Job], inputs: tuple[Tensor, ...], seed: int
    ) -> Ran:
        """Compile for a kind of request, by carrying out the first."""
        if self._device.type == "cpu":
            with _TURNS:
                runner: Runner = PlainRunner(job())
                ran = runner.run(inputs, seed)
                self._keep(key, runner)
                return ran
        # Others may use what is compiled already.
        with _COMPILING:
            runner = GraphRunner(job(), self._device, inputs[0].device.type == "cpu")
            ran = runner.run(inputs, seed)
        with _TURNS:
            self._keep(key, runner)
        return ran

    def _keep(self, key: Hashable, runner: Runner) -> None:
        while len(self._runners) >= _MOST_RUNNERS:
            self._runners.popitem(last=False)
        self._runners[key] = runner

    def _failed(self, key: Hashable, error: Exception) -> None:
        with _TURNS:
            self._runners.pop(key, None)
        self._on_fallback(self.name, "error", str(error) or type(error).__name__)


def _host() -> Backend:
    """The host's best backend."""
    try:
        from trimtab_server.solver.backends.cpu.backend import Cpu
    except (ImportError, RuntimeError):
        return Reference()
    return Cpu()
