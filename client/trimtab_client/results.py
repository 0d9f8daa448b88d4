"""The results of calls."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from trimtab_client.exceptions import TrimtabError
from trimtab_client.placement import Balance, Placement
from trimtab_protocol.placement import IntArray
from trimtab_protocol.version import Version


@dataclass(frozen=True, eq=False)
class Moves:
    """Expert weights to copy: one for each expert new to a GPU, by (layer, slot).

    A copy between two slots of one GPU is not a move.

    Attributes:
        layer: int32 [M].
        slot: int32 [M], the destination.
        expert: int32 [M].
        source_gpus: int32 [M, X], padded with -1: the GPUs that held the expert before, ascending.
    """

    layer: IntArray
    slot: IntArray
    expert: IntArray
    source_gpus: IntArray

    @classmethod
    def none(cls) -> Moves:
        """An empty set of moves."""
        empty = np.empty(0, np.int32)
        return cls(empty, empty, empty, np.empty((0, 0), np.int32))

    def __len__(self) -> int:
        return len(self.layer)

    def per_layer(self, num_layers: int) -> npt.NDArray[np.int64]:
        """Moves of each layer, int64 [L]."""
        return np.bincount(self.layer, minlength=num_layers)


@dataclass(frozen=True, eq=False)
class PlaceResult:
    """A placement, with the moves that it takes and the balance that it reaches.

    Attributes:
        moves: from the current placement to the new one; empty if there is no current one.
        before: balance of the current placement under the load; None if there is none.
        after: balance of the new placement under the load.
    """

    placement: Placement
    moves: Moves
    before: Balance | None
    after: Balance


@dataclass(frozen=True, eq=False)
class PackResult:
    """The pack of each item.

    Attributes:
        pack_index: int32 [X, n], the pack of each item.
        rank_in_pack: int32 [X, n], the position of each item in its pack.
    """

    pack_index: IntArray
    rank_in_pack: IntArray


@dataclass(frozen=True)
class TriggerResult:
    """The placement that a deployment switches to, or has already.

    Attributes:
        in_force: the version in force when the call returned.
        target: the placement after all switches to it have been carried out.
    """

    in_force: Version
    target: Placement


@dataclass(frozen=True, eq=False)
class StreamItem:
    """The result of one load of a stream: either `result` or `error` is set.

    Attributes:
        index: position of the load in the stream, from 0.
        result: the placement; None if there is none.
        error: why this load could not be placed; the current placement stayed. None if it was.
    """

    index: int
    result: PlaceResult | None = None
    error: TrimtabError | None = None

    def unwrap(self) -> PlaceResult:
        """The result; raises `error` if that is set."""
        if self.result is None:
            raise self.error or TrimtabError(f"load {self.index} has no result")
        return self.result
