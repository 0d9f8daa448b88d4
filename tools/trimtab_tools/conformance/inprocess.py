"""A group of reference engines in one process, joined by memory."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping

import numpy as np

from trimtab_tools.conformance.adapter import FloatArray, GroupSpec
from trimtab_tools.conformance.reference import NumpyEngine, Place

_PATIENCE_SECONDS = 60.0


class InProcess:
    """The `Transport` that all ranks of a group share.

    Args:
        ranks: how many they are.

    Attributes:
        owners: the rank of each GPU.
    """

    def __init__(self, ranks: int) -> None:
        self.owners: dict[int, NumpyEngine] = {}
        self._lock = threading.Lock()
        self._sent: dict[Place, FloatArray] = {}
        self._received: dict[Place, FloatArray] = {}
        self._all_here = threading.Barrier(ranks, self._deliver, _PATIENCE_SECONDS)

    def read(self, gpu: int, layer: int, slot: int) -> FloatArray:
        """See `Transport`."""
        return self.owners[gpu].weights_in(layer, slot)

    def exchange(self, sent: Mapping[Place, FloatArray]) -> Mapping[Place, FloatArray]:
        """See `Transport`. Every rank gets what is sent to any."""
        with self._lock:
            self._sent |= sent
        self._all_here.wait()
        # Not replaced before all ranks are here again, and so have taken theirs.
        return self._received

    def _deliver(self) -> None:
        self._received, self._sent = self._sent, {}


def checkpoint(layer: int, expert: int, hidden: int) -> FloatArray:
    """The weights of an expert, float32 [H, H]: at random, and always the same."""
    rng = np.random.default_rng([layer, expert])
    return rng.standard_normal((hidden, hidden), np.float32)


def make_group(
    spec: GroupSpec, kind: Callable[..., NumpyEngine] = NumpyEngine
) -> list[NumpyEngine]:
    """Make the ranks of a group; `kind` makes one, from the arguments of `NumpyEngine`."""
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
