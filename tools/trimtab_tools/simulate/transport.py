"""How weights come to a rank: reads from peers, or a collective of the group."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from trimtab_tools.simulate.checkpoint import FloatArray
from trimtab_tools.simulate.rank_pipe import RankPipe
from trimtab_tools.simulate.options import FleetOptions
from trimtab_tools.simulate.weight_reads import WeightReader
from trimtab_tools.simulate.encoding import pack, unpack

Weights = Mapping[tuple[int, int], FloatArray]


class FleetTransport:
    """What the engine's adapter moves weights by.

    Args:
        options: the fleet's.
        reader: of other ranks' weights.
        control: the group's collective.

    Attributes:
        moved: bytes of weights that have come from other ranks.
    """

    def __init__(self, options: FleetOptions, reader: WeightReader, control: RankPipe) -> None:
        self.moved = 0
        self._options = options
        self._reader = reader
        self._control = control

    def read(self, gpu: int, layer: int, slot: int) -> FloatArray:
        """The weights in force in a slot of another GPU, float32 [H, H]."""
        weights = self._reader.read(gpu, layer, slot)
        self.moved += weights.nbytes
        return weights

    def exchange(self, sent: Weights) -> Weights:
        """All ranks at once: weights by (layer, slot that they go to), to those that own it."""
        hidden = self._options.hidden
        parts = [self._part(sent, rank) for rank in range(self._options.ranks)]
        received: dict[tuple[int, int], FloatArray] = {}
        for part in self._control.exchange("weights", parts):
            self.moved += len(part)
            layer_N, slot_N, weight_NX = unpack(part, hidden * hidden)
            weight_NHH = weight_NX.reshape(-1, hidden, hidden)
            keys = zip(layer_N.tolist(), slot_N.tolist(), strict=True)
            received.update(zip(keys, weight_NHH, strict=True))
        return received

    def _part(self, sent: Weights, rank: int) -> bytes:
        keys = [key for key in sent if key[1] // self._options.slots_per_rank == rank]
        if not keys:
            return b""
        layer_N, slot_N = np.array(keys, np.int32).T
        return pack(layer_N, slot_N, np.stack([sent[key].ravel() for key in keys]))
