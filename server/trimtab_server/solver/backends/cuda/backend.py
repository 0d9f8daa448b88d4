"""The cuda backend: plans and packs in fused Triton kernels, and leaves all else to the host."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Hashable, Mapping
from contextlib import nullcontext
from functools import partial

import torch
from torch import Tensor

from trimtab_server.domain.topology import Topology
from trimtab_server.solver.backends.backend import Backend, Fallback, Packing, Solved
from trimtab_server.solver.backends.cuda.backoff import Backoff
from trimtab_server.solver.backends.cuda.device import require_usable
from trimtab_server.solver.backends.cuda.jobs import Job, PackJob, PlanJob
from trimtab_server.solver.backends.cuda.runner import GraphRunner, PlainRunner, Ran, Runner
from trimtab_server.solver.backends.cuda.runners import Runners, free_bytes
from trimtab_server.solver.backends.cuda.shapes import Packs, Plan
from trimtab_server.solver.backends.cuda.warps import Warps
from trimtab_server.solver.backends.reference.backend import Reference
from trimtab_server.solver.settings import Settings

JobOn = Callable[[torch.device], Job]
"""Makes the job of a kind of request on a device; on "meta" only to count its bytes."""

_DEVICE_LOCK = threading.Lock()
"""Held while a request runs or a graph is captured. A runner's buffers serve one request at a
time, a capture fails if another runner uses its stream, and Triton's interpreter patches its module
while it runs. The device would not run two requests faster."""

_MAX_COMPILING = 4
"""Kinds of request that may wait for the compiler; others are compiled when they come again."""

_COMPILE_LOCK = threading.Lock()
"""Held while a kind of request is compiled and captured."""


class Cuda:
    """Triton kernels on a CUDA device; see `Backend`.

    `plan` and `pack` run on the device, each request as one CUDA graph. The host's best
    backend does all else: that takes at most a millisecond, and the host needs the answers
    anyway. It also answers requests that the kernels do not support, and those that fail.
    The first request of a kind takes seconds to compile.

    Args:
        device: CUDA; or the CPU, in Triton's interpreter.
        on_fallback: called for requests that the host's backend answers instead.
        wait_for_kernels: whether requests wait until their kernels are compiled; if not,
            the host answers meanwhile.
        warps: overrides the choice of warps, for measurements.
        clock: a monotonic clock, in seconds.

    Raises:
        RuntimeError: the device cannot be used.
    """

    name = "cuda"

    def __init__(
        self,
        device: torch.device,
        on_fallback: Fallback,
        wait_for_kernels: bool = True,
        warps: Warps | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        require_usable(device)
        self._device, self._on_fallback, self._warps = device, on_fallback, warps or Warps()
        self._wait_for_kernels, self._interpreted = wait_for_kernels, device.type == "cpu"
        # The host does everything for which there are no kernels.
        self._host = host = _host()
        self.replicate, self.improve, self.bound = host.replicate, host.improve, host.bound
        self.balance, self.moves = host.balance, host.moves
        self.align, self.slot_maps = host.align, host.slot_maps
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

    def pack(
        self, weight_XI: Tensor, num_packs: int, group_XI: Tensor | None, settings: Settings
    ) -> Packing:
        """See `Backend`."""
        rows, items = weight_XI.shape
        groups = 0 if group_XI is None else items
        packs = Packs.of(rows, items, num_packs, groups, settings)
        inputs = (weight_XI,) if group_XI is None else (weight_XI, group_XI)
        ran = self._run(
            (packs, settings.tolerance),
            packs.unsupported(),
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
        ran = self._run(
            (plan, settings.tolerance),
            plan.unsupported(),
            lambda device: PlanJob(plan, settings, device, self._warps),
            (load_LE,),
            settings.seed,
        )
        if ran is None:
            return self._host.plan(load_LE, topology, settings)
        (phy2log_LR,) = ran.outputs
        return Solved(phy2log_LR, ran.iterations, ran.swaps)

    def wait_until_compiled(self) -> None:
        """Wait until no kernels are being compiled."""
        for thread in list(self._compiling.values()):
            thread.join()

    def _run(
        self,
        kind: Hashable,
        unsupported: str | None,
        job: JobOn,
        inputs: tuple[Tensor, ...],
        seed: int,
    ) -> Ran | None:
        """Run a request on the device; None if the host has to, which `on_fallback` is told."""
        if unsupported is not None:
            self._on_fallback(self.name, "shape", unsupported)
            return None
        key = kind, inputs[0].device.type
        try:
            with _DEVICE_LOCK:
                runner = self._runners.get(key)
                if runner is not None:
                    return runner.run(inputs, seed)
                reason = self._backoff.blocked_reason(key)
            if reason is not None:
                self._on_fallback(self.name, "backoff", reason)
                return None
            if self._wait_for_kernels:
                return self._compile_and_run(key, job, inputs, seed)
            self._compile_in_background(key, job, inputs, seed)
        except Exception as error:  # noqa: BLE001 - whatever fails here, the host can still answer
            self._record_failure(key, error)
        return None

    def _compile_in_background(
        self, key: Hashable, job: JobOn, inputs: tuple[Tensor, ...], seed: int
    ) -> None:
        def compile_kind() -> None:
            try:
                if copied is not None:
                    torch.cuda.current_stream(device).wait_event(copied)
                self._compile_and_run(key, job, copies, seed)
            except Exception as error:  # noqa: BLE001 - as above
                self._record_failure(key, error)
            finally:
                with _DEVICE_LOCK:
                    self._compiling.pop(key, None)

        self._on_fallback(self.name, "cold", f"compiling for {key}")
        with _DEVICE_LOCK:
            if key in self._compiling or len(self._compiling) >= _MAX_COMPILING:
                return
            # The caller may change its tensors after this call. The copies are made on the
            # caller's stream, for which the stream of another thread has to wait explicitly.
            copies = tuple(value.clone() for value in inputs)
            device = inputs[0].device
            copied = None
            if device.type != "cpu":
                copied = torch.cuda.current_stream(device).record_event()
            thread = threading.Thread(target=compile_kind, name="trimtab-compile", daemon=True)
            thread.start()
            self._compiling[key] = thread

    def _compile_and_run(
        self, key: Hashable, job: JobOn, inputs: tuple[Tensor, ...], seed: int
    ) -> Ran:
        """Answer the first request of a kind, which compiles its kernels."""
        with _COMPILE_LOCK:
            with _DEVICE_LOCK:
                runner = self._runners.get(key)
                if runner is not None:  # Another thread has compiled it meanwhile.
                    return runner.run(inputs, seed)
                self._runners.make_room(job(torch.device("meta")).nbytes)
            # On a GPU other requests may run meanwhile, if their kernels are compiled.
            with _DEVICE_LOCK if self._interpreted else nullcontext():
                runner = self._runner(job(self._device), inputs)
                ran = runner.first(inputs, seed)
            with _DEVICE_LOCK:
                runner.capture()
                self._runners.keep(key, runner)
                self._backoff.succeeded(key)
        return ran

    def _runner(self, job: Job, inputs: tuple[Tensor, ...]) -> Runner:
        if self._interpreted:
            return PlainRunner(job)
        return GraphRunner(job, self._device, inputs[0].device.type == "cpu")

    def _record_failure(self, key: Hashable, error: Exception) -> None:
        reason = str(error) or type(error).__name__
        with _DEVICE_LOCK:
            self._runners.drop(key)
            self._backoff.failed(key, reason)
        self._on_fallback(self.name, "error", reason)


def _host() -> Backend:
    """The fastest backend that can run on the host."""
    try:
        from trimtab_server.solver.backends.cpu.backend import Cpu
    except (ImportError, RuntimeError):
        return Reference()
    return Cpu()
