"""A fake GPU that computes nothing, but follows the rules of CUDA's streams and graphs.

It replaces `torch.cuda` on machines without a device. It records which work each stream has waited
for; like torch, it hands out the same few streams in rotation; it refuses work on a stream that is
being captured, which also makes the capture fail; and it counts the memory of the jobs on it.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import torch
from torch import Tensor

from trimtab_server.domain.topology import Topology
from trimtab_server.solver.backends.backend import Solved
from trimtab_server.solver.backends.cuda import backend as backends
from trimtab_server.solver.backends.cuda import runner as runners
from trimtab_server.solver.backends.cuda.backend import Cuda
from trimtab_server.solver.backends.cuda.shapes import Plan
from trimtab_server.solver.backends.reference.backend import Reference
from trimtab_server.solver.settings import Settings

DEVICE = torch.device("cuda", 0)


class FakeEvent:
    def __init__(self, after: dict[FakeStream, int]) -> None:
        self.after = after


class FakeStream:
    """A stream.

    Attributes:
        after: how much work of each stream is ordered before the next work of this one.
    """

    def __init__(self) -> None:
        self.after: dict[FakeStream, int] = {self: 0}
        self.capturing = False
        self.spoilt = False

    def work(self) -> None:
        self.after[self] += 1

    def record_event(self) -> FakeEvent:
        return FakeEvent(dict(self.after))

    def wait_event(self, event: FakeEvent) -> None:
        for stream, amount in event.after.items():
            self.after[stream] = max(amount, self.after.get(stream, 0))

    def wait_stream(self, other: FakeStream) -> None:
        self.wait_event(other.record_event())

    def synchronize(self) -> None:
        """Does nothing, since all work is done at once."""


class FakeGraph:
    def __init__(self, gpu: FakeGpu) -> None:
        self._gpu = gpu

    def replay(self) -> None:
        stream = self._gpu.current_stream()
        if stream.capturing:
            stream.spoilt = True
            raise RuntimeError("operation not permitted when stream is capturing")
        self._gpu.replayed()


class FakeJob:
    """A job that has buffers and no kernels."""

    def __init__(self, gpu: FakeGpu, plan: Plan, device: torch.device) -> None:
        shape = plan.layers, plan.experts
        self._gpu, self.plan = gpu, plan
        self.inputs = (torch.zeros(shape, dtype=torch.float64, device=gpu.buffers),)
        slots = plan.topology.num_replicas
        self.outputs = (torch.zeros(plan.layers, slots, dtype=torch.int64, device=gpu.buffers),)
        self.counters = torch.zeros(2, dtype=torch.int64)
        self.starts = ()
        self.nbytes = plan.layers
        if device != torch.device("meta"):
            gpu.jobs.append(weakref.ref(self))

    def launch(self) -> None:
        self._gpu.launched(self)


class FakeHost(Reference):
    """The host's backend; its plans have -1 in every slot."""

    def plan(self, load_LE: Tensor, topology: Topology, settings: Settings) -> Solved:
        slots = torch.full((len(load_LE), topology.num_replicas), -1)
        return Solved(slots, 0, 0)


class FakeGpu:
    """The device, as tests inspect and control it.

    Attributes:
        jobs: weak references to all jobs that were ever made on it.
        buffers: the torch device of the buffers of new jobs.
        memory: bytes in all; each layer of a job takes one.
        launched: called at each launch of a job.
        replayed: called at each replay of a graph.
        told: reasons and details of the fallbacks that backends reported.
        now: seconds.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.jobs: list[weakref.ref[FakeJob]] = []
        self.buffers = "cpu"
        self.memory = 1 << 40
        self.launched: Callable[[FakeJob], None] = lambda _: None
        self.replayed: Callable[[], None] = lambda: None
        self.told: list[tuple[str, str]] = []
        self.now = 0.0
        self._default, self._pooled = FakeStream(), FakeStream()
        self._of_thread = threading.local()
        for name, stand_in in {
            "Stream": lambda _device=None: self._pooled,
            "current_stream": self.current_stream,
            "stream": self.on_stream,
            "device": lambda _device: _nothing(),
            "CUDAGraph": lambda: FakeGraph(self),
            "graph": self._capture,
            "mem_get_info": lambda _device: (self.memory - self._taken(), self.memory),
            "memory_reserved": lambda _device: 0,
            "memory_allocated": lambda _device: 0,
        }.items():
            monkeypatch.setattr(torch.cuda, name, stand_in)
        monkeypatch.setattr(torch.Tensor, "record_stream", lambda *_: None)
        clone = torch.Tensor.clone

        def clone_there(tensor: Tensor) -> Tensor:
            self.current_stream().work()
            return clone(tensor)

        monkeypatch.setattr(torch.Tensor, "clone", clone_there)
        monkeypatch.setattr(runners, "_pinned", torch.clone)
        monkeypatch.setattr(backends, "require_usable", lambda _device: None)
        monkeypatch.setattr(backends, "_host", FakeHost)
        monkeypatch.setattr(
            backends, "PlanJob", lambda plan, _how, device, _warps: FakeJob(self, plan, device)
        )

    def cuda(self, *, wait_for_kernels: bool) -> Cuda:
        def told(_backend: str, reason: str, detail: str) -> None:
            self.told.append((reason, detail))

        return Cuda(DEVICE, told, wait_for_kernels, clock=lambda: self.now)

    @property
    def alive(self) -> list[int]:
        """The number of layers of each job whose buffers still exist."""
        return [job.plan.layers for found in self.jobs if (job := found()) is not None]

    def current_stream(self, _device: object = None) -> FakeStream:
        found: FakeStream = getattr(self._of_thread, "stream", self._default)
        return found

    @contextmanager
    def on_stream(self, stream: FakeStream) -> Iterator[None]:
        before = self.current_stream()
        self._of_thread.stream = stream
        try:
            yield
        finally:
            self._of_thread.stream = before

    @contextmanager
    def _capture(self, _graph: FakeGraph, *, stream: FakeStream, **_: object) -> Iterator[None]:
        stream.capturing, stream.spoilt = True, False
        try:
            with self.on_stream(stream):
                yield
        finally:
            stream.capturing = False
        if stream.spoilt:
            raise RuntimeError("operation failed due to a previous error during capture")

    def _taken(self) -> int:
        return sum(self.alive)


@contextmanager
def _nothing() -> Iterator[None]:
    yield
