"""Runs a job: as one CUDA graph on a GPU, as plain calls in Triton's interpreter."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from trimtab_server.solver.backends.cuda.jobs import Job
from trimtab_server.solver.backends.cuda.seeds import seed_hash


class Ran(NamedTuple):
    """The answers, which belong to the caller, and the steps and swaps behind them."""

    outputs: tuple[Tensor, ...]
    iterations: int
    swaps: int


class Runner(Protocol):
    """Runs the requests of a job. The caller makes sure that only one runs at a time."""

    job: Job

    def first(self, inputs: tuple[Tensor, ...], seed: int) -> Ran:
        """Answer the first request; compiling and loading the kernels takes seconds."""

    def capture(self) -> None:
        """Prepare for further requests, after `first`. No other runner may run meanwhile."""

    def run(self, inputs: tuple[Tensor, ...], seed: int) -> Ran:
        """Answer one request; the answers are on the device of the inputs."""


class PlainRunner:
    """Calls the kernels one by one, on tensors on the CPU: for Triton's interpreter."""

    def __init__(self, job: Job) -> None:
        self.job = job

    def first(self, inputs: tuple[Tensor, ...], seed: int) -> Ran:
        """See `Runner`."""
        return self.run(inputs, seed)

    def capture(self) -> None:
        """See `Runner`; does nothing."""

    def run(self, inputs: tuple[Tensor, ...], seed: int) -> Ran:
        """See `Runner`."""
        for buffer, value in zip(self.job.inputs, inputs, strict=True):
            buffer.copy_(value)
        for starts in self.job.starts:
            starts.seed.fill_(seed_hash(seed))
        self.job.launch()
        iterations, swaps = self.job.counters.tolist()
        outputs = tuple(output.to(inputs[0].device, copy=True) for output in self.job.outputs)
        return Ran(outputs, iterations, swaps)


class GraphRunner:
    """Replays a job as a CUDA graph; the host waits once for each request.

    If requests come from the host, the graph also copies them to the device and the answers
    back, through pinned memory. If they come from the device, they are copied on the device,
    and the answers stay there.

    A capture fails, together with the captured work, if its stream is used for anything else
    meanwhile. torch hands out the same few streams again and again, so two runners may share one.

    Args:
        job: with its buffers on the device.
        device: CUDA.
        from_host: whether requests come from the host.
    """

    def __init__(self, job: Job, device: torch.device, from_host: bool) -> None:
        self.job = job
        self._device, self._from_host = device, from_host
        self._stream = torch.cuda.Stream(device)
        self._graph = torch.cuda.CUDAGraph()
        self._seed: int | None = None
        self._counters = _pinned(job.counters)
        self._inputs = tuple(_pinned(buffer) for buffer in job.inputs) if from_host else ()
        self._outputs = tuple(_pinned(buffer) for buffer in job.outputs) if from_host else ()
        # The job's buffers were initialised on the caller's stream.
        torch.cuda.current_stream(device).synchronize()

    def first(self, inputs: tuple[Tensor, ...], seed: int) -> Ran:
        """See `Runner`. This is not captured, since kernels must not be loaded in a capture."""
        return self._answer(inputs, seed, self._launch)

    def capture(self) -> None:
        """See `Runner`."""
        with (
            torch.cuda.device(self._device),
            torch.cuda.graph(self._graph, stream=self._stream, capture_error_mode="thread_local"),
        ):
            self._launch()

    def run(self, inputs: tuple[Tensor, ...], seed: int) -> Ran:
        """See `Runner`."""
        return self._answer(inputs, seed, self._graph.replay)

    def _answer(self, inputs: tuple[Tensor, ...], seed: int, work: Callable[[], None]) -> Ran:
        caller = None if self._from_host else torch.cuda.current_stream(inputs[0].device)
        with torch.cuda.device(self._device), torch.cuda.stream(self._stream):
            self._stage(inputs, seed, caller)
            work()
            outputs = self._outputs
            if caller is not None:
                outputs = tuple(output.clone() for output in self.job.outputs)
                for output in outputs:
                    output.record_stream(caller)
            self._stream.synchronize()
        if self._from_host:
            outputs = tuple(output.clone() for output in outputs)
        else:
            outputs = tuple(output.to(inputs[0].device) for output in outputs)
        iterations, swaps = self._counters.tolist()
        return Ran(outputs, iterations, swaps)

    def _stage(
        self, inputs: tuple[Tensor, ...], seed: int, caller: torch.cuda.Stream | None
    ) -> None:
        if self._seed != seed:
            for starts in self.job.starts:
                starts.seed.fill_(seed_hash(seed))
            self._seed = seed
        if caller is None:
            for buffer, value in zip(self._inputs, inputs, strict=True):
                buffer.copy_(value)
        else:
            self._stream.wait_stream(caller)
            for buffer, value in zip(self.job.inputs, inputs, strict=True):
                buffer.copy_(value, non_blocking=True)

    def _launch(self) -> None:
        for buffer, value in zip(self.job.inputs, self._inputs, strict=False):
            buffer.copy_(value, non_blocking=True)
        self.job.launch()
        for value, buffer in zip(self._outputs, self.job.outputs, strict=False):
            value.copy_(buffer, non_blocking=True)
        self._counters.copy_(self.job.counters, non_blocking=True)


def _pinned(buffer: Tensor) -> Tensor:
    return torch.empty_like(buffer, device="cpu", pin_memory=True)
