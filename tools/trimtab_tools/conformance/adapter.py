"""The interface of an engine's adapter: the methods of one rank that a switch needs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from trimtab_client.placement import IntArray, Placement
from trimtab_client.worker.offer import Flip, SwitchOffer
from trimtab_protocol.messages import Transfer

FloatArray = npt.NDArray[np.float32]


class EngineAdapter(Protocol):
    """One rank of an engine: the weights in its slots, its staging, and its maps.

    `on_offer`, `on_abort` and `flip` carry out a switch. `phy2log` and `compute` show the
    result; only tests need them.
    """

    def on_offer(self, offer: SwitchOffer) -> Future[Any] | bool | None:
        """Begin to fill staging, and return soon: see `WorkerSession`.

        A pull is called on the session's thread, while the engine serves. A collective transfer
        is called on the engine's thread, between two steps, on all ranks of the group at once.
        """

    def on_abort(self, offer: SwitchOffer) -> object:
        """Free the staging of this offer. Its transfer has ended before."""

    def flip(self, flip: Flip) -> None:
        """Copy staging to slots, and replace the maps.

        Called on the engine's thread, between two steps. When it returns, the flip is done and
        staging is free. If it raises, the rank has to stop serving.
        """

    def phy2log(self) -> IntArray:
        """The expert of each slot by which this rank routes now, int32 [L, R].

        Take it from the map that the router itself reads, for instance from `log2phy`.
        """

    def compute(self, layer: int, slot: int, tokens: FloatArray) -> FloatArray:
        """Apply the weights in one of its own slots to tokens, [T, H] to [T, H]."""

    def close(self) -> None:
        """Free everything, threads included. This is the last call, and it comes once."""


@dataclass(frozen=True)
class GroupSpec:
    """A group of ranks to make for a test.

    Attributes:
        placement: the placement by which all ranks serve at first.
        gpus: the GPUs of each rank, ascending; together all GPUs of the placement.
        transfer: how weights come into staging.
        staging_slots: number of expert weights for which the staging of each GPU has room.
        hidden: H, the width of tokens.
    """

    placement: Placement
    gpus: tuple[tuple[int, ...], ...]
    transfer: Transfer
    staging_slots: int
    hidden: int = 8


MakeGroup = Callable[[GroupSpec], Sequence[EngineAdapter]]
"""Makes the ranks of a group, loaded with the placement's weights, in the order of `gpus`.

The ranks may be objects of one process, or proxies of other processes. No two experts of a layer
may compute the same, and each expert must be the same in every group. Raise NotImplementedError
if the engine has no such groups, for instance no ranks with several GPUs.
"""
