"""Runs a job: on a GPU as one CUDA graph, in Triton's interpreter as plain calls."""

from __future__ import annotations

from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from trimtab_server.solver.backends.cuda.jobs import Job
from trimtab_server.solver.backends.cuda.seeds import seed_hash


class Ran(NamedTuple):
    """Answers, the caller's own, and the steps and swaps that they took."""

    outputs: tuple[Tensor, ...]
    iterations: int
    swaps: int


class Runner(Protocol):
    """Carries a job's requests out, one after another: the caller takes turns."""

    job: Job

    def run(self, inputs: tuple[Tensor, ...], seed: int) -> Ran:
        """Answer one request; answers lie where the inputs do."""


class PlainRunner:
    """Calls the kernels one by one, on tensors on the CPU: for Triton's interpreter."""

    def __init__(self, job: Job) -> None:
        self.job = job

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
    """Replays a job as a CUDA graph; the host waits once a request.

    From the host, copies there and back are part of the graph, through pinned memory.
    On the device, the request is copied from there, and answers stay there.
    """

    def __init__(self, job: Job, device: torch.device, from_host: bool) -> None:
        self.job = job
        self._device, self._from_host = device, from_host
        self._stream = torch.cuda.Stream(device)
        self._graph: torch.cuda.CUDAGraph | None = None
        self._seed: int | None = None
        self._counters = _pinned(job.counters)
        self._inputs = tuple(_pinned(buffer) for buffer in job.inputs) if from_host else ()
        self._outputs = tuple(_pinned(buffer) for buffer in job.outputs) if from_host else ()
        # The job's buffers were filled on the caller's stream.
        torch.cuda.current_stream(device).synchronize()

    def run(self, inputs: tuple[Tensor, ...], seed: int) -> Ran:
        """See `Runner`."""
        with torch.cuda.device(self._device):
            caller = torch.cuda.current_stream()
            with torch.cuda.stream(self._stream):
                self._stage(inputs, seed, caller)
                self.replay()
                outputs = self._outputs
                if not self._from_host:
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

    def replay(self) -> None:
        """Queue everything on the current stream, once more as it was."""
        if self._graph is None:
            # Compiles and loads the kernels, which must not happen in a capture; and
            # answers the first request.
            self._launch()
            self._stream.synchronize()
            self._graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(
                self._graph, stream=self._stream, capture_error_mode="thread_local"
            ):
                self._launch()
        else:
            self._graph.replay()

    def _stage(self, inputs: tuple[Tensor, ...], seed: int, caller: torch.cuda.Stream) -> None:
        if self._seed != seed:
            for starts in self.job.starts:
                starts.seed.fill_(seed_hash(seed))
            self._seed = seed
        if self._from_host:
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
