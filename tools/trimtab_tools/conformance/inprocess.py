"""A group of reference engines in one process, which exchange weights through memory."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping

import numpy as np

from trimtab_tools.conformance.adapter import FloatArray, GroupSpec
from trimtab_tools.conformance.reference import NumpyEngine, Place

_TIMEOUT_S = 60.0


class InProcess:
    """The `Transport` that all ranks of a group share. `owners` has the rank of each GPU."""

    def __init__(self, ranks: int) -> None:
        self.owners: dict[int, NumpyEngine] = {}
        self._lock = threading.Lock()
        self._sent: dict[Place, FloatArray] = {}
        self._received: dict[Place, FloatArray] = {}
        self._all_here = threading.Barrier(ranks, self._deliver, _TIMEOUT_S)

    def read(self, gpu: int, layer: int, slot: int) -> FloatArray:
        """See `Transport`."""
        return self.owners[gpu].weights_in(layer, slot)

    def exchange(self, sent: Mapping[Place, FloatArray]) -> Mapping[Place, FloatArray]:
        """See `Transport`. Every rank gets what is sent to all ranks."""
        with self._lock:
            self._sent |= sent
        self._all_here.wait()
        # The next exchange replaces it only once all ranks have called again, and so have read it.
        return self._received

    def _deliver(self) -> None:
        self._received, self._sent = self._sent, {}


def checkpoint(layer: int, expert: int, hidden: int) -> FloatArray:
    """The weights of an expert, float32 [H, H]: random numbers, the same at each call."""
    rng = np.random.default_rng([layer, expert])
    return rng.standard_normal((hidden, hidden), np.float32)


def make_group(
    spec: GroupSpec, kind: Callable[..., NumpyEngine] = NumpyEngine
) -> list[NumpyEngine]:
    """Make the ranks of a group; `kind` makes a rank from the arguments of `NumpyEngine`."""
    transport = InProcess(len(spec.gpus))
    ranks = [
        kind(
            gpus,
            spec.placement,
            lambda layer, expert: checkpoint(layer, expert, spec.hidden),
            transport,
            transfer=spec.transfer,
            staging_slots=spec.staging_slots,
        )
        for gpus in spec.gpus
    ]
    transport.owners |= {
        gpu: rank for gpus, rank in zip(spec.gpus, ranks, strict=True) for gpu in gpus
    }
    return ranks
