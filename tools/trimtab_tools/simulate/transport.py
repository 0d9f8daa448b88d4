"""How weights come to a rank: by reads from other ranks, or by a collective of the group."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from trimtab_tools.conformance.adapter import FloatArray
from trimtab_tools.conformance.reference import Place
from trimtab_tools.simulate.encoding import decode, encode
from trimtab_tools.simulate.options import FleetOptions
from trimtab_tools.simulate.rank_pipe import RankPipe
from trimtab_tools.simulate.weight_reads import WeightReader

Weights = Mapping[Place, FloatArray]


class FleetTransport:
    """The `Transport` of the ranks' engines.

    Attributes:
        moved: bytes of weights that have come from other ranks so far.
    """

    def __init__(self, options: FleetOptions, reader: WeightReader, pipe: RankPipe) -> None:
        self.moved = 0
        self._options = options
        self._reader = reader
        self._pipe = pipe

    def read(self, gpu: int, layer: int, slot: int) -> FloatArray:
        """The weights in force in a slot of another GPU, float32 [H, H]."""
        weights = self._reader.read(gpu, layer, slot)
        self.moved += weights.nbytes
        return weights

    def exchange(self, sent: Weights) -> Weights:
        """Send weights to the ranks that own their slots, by (layer, slot); a collective."""
        hidden = self._options.hidden
        parts = [self._part(sent, rank) for rank in range(self._options.ranks)]
        received: dict[Place, FloatArray] = {}
        for part in self._pipe.exchange("weights", parts):
            self.moved += len(part)
            layer_N, slot_N, weight_NX = decode(part, hidden * hidden)
            weight_NHH = weight_NX.reshape(-1, hidden, hidden)
            keys = zip(layer_N.tolist(), slot_N.tolist(), strict=True)
            received.update(zip(keys, weight_NHH, strict=True))
        return received

    def _part(self, sent: Weights, rank: int) -> bytes:
        keys = [key for key in sent if key[1] // self._options.slots_per_rank == rank]
        if not keys:
            return b""
        layer_N, slot_N = np.array(keys, np.int32).T
        return encode(layer_N, slot_N, np.stack([sent[key].ravel() for key in keys]))
