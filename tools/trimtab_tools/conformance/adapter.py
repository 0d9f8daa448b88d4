"""What an engine's adapter is: the methods that a switch needs of one rank."""

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

    `on_offer`, `on_abort` and `flip` are what an engine does for a switch. `phy2log` and
    `compute` show what it has become; only tests need them.
    """

    def on_offer(self, offer: SwitchOffer) -> Future[Any] | bool | None:
        """Begin to fill staging, and return soon: see `WorkerSession`.

        Pull: on the session's thread, while the engine serves. Collective: on the engine's
        thread, between two steps, on all ranks of the group at once.
        """

    def on_abort(self, offer: SwitchOffer) -> object:
        """Free the staging of this offer. No transfer into it runs any more."""

    def flip(self, flip: Flip) -> None:
        """Copy staging to slots, and replace the maps: on the engine's thread, between two steps.

        It ends with the flip done and staging free, or it raises, and then the rank has to
        stop serving.
        """

    def phy2log(self) -> IntArray:
        """The expert of each slot by which this rank routes now, int32 [L, R].

        Read back from the maps that the router itself reads: from `log2phy`, where it is that.
        """

    def compute(self, layer: int, slot: int, tokens: FloatArray) -> FloatArray:
        """What the weights in one of its own slots make of some tokens now: [T, H] to [T, H]."""

    def close(self) -> None:
        """Free everything, threads included. Called once, and the last call."""


@dataclass(frozen=True)
class GroupSpec:
    """A group of ranks to be made for a test.

    Attributes:
        placement: what all serve by at first.
        gpus: the GPUs of each rank, ascending; together all GPUs of the placement.
        transfer: how weights come into staging.
        staging_slots: expert weights that the staging of each GPU has room for.
        hidden: H, the width of tokens.
    """

    placement: Placement
    gpus: tuple[tuple[int, ...], ...]
    transfer: Transfer
    staging_slots: int
    hidden: int = 8


MakeGroup = Callable[[GroupSpec], Sequence[EngineAdapter]]
"""Makes the ranks of a group, loaded with the placement's weights, in the order of `gpus`.

The ranks may be objects of one process or stand for others. Experts must differ: no two of a
layer may compute the same. And each has to be the same in every group. NotImplementedError
says that the engine has no such groups, such as ranks of several GPUs.
"""
