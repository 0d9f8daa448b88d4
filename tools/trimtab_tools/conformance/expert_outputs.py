"""What each expert computes, and whether a rank computes and routes as it should.

Legend for all shapes: L layers, E experts, R slots of a layer, O own slots of a rank, T tokens,
H hidden size.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from trimtab_client.placement import IntArray, Placement
from trimtab_tools.conformance.adapter import FloatArray
from trimtab_tools.conformance.errors import BrokenContractError

_TOLERANCE = 1e-3
"""How much outputs of the same weights may differ, relative to the largest number in them."""


class Observation(NamedTuple):
    """How a rank routes, and what it computes.

    Attributes:
        phy2log_LR: the expert of each slot by which it routes.
        slots_O: its own slots.
        outputs_LOTH: what these compute for the test's tokens.
    """

    phy2log_LR: IntArray
    slots_O: npt.NDArray[np.int64]
    outputs_LOTH: FloatArray


class ExpertOutputs:
    """What each expert computes for the test's tokens, as a group does before its first switch."""

    def __init__(self, placement: Placement, ranks: Iterable[Observation]) -> None:
        layer_L1 = np.arange(len(placement.phy2log))[:, None]
        seen = list(ranks)
        shape = (*placement.logcnt.shape, *seen[0].outputs_LOTH.shape[2:])
        self._outputs_LETH: FloatArray = np.zeros(shape, np.float32)
        for rank in seen:
            expert_LO = placement.phy2log[:, rank.slots_O]
            self._outputs_LETH[layer_L1, expert_LO] = rank.outputs_LOTH

    def require_distinct(self) -> None:
        """Check that the experts of a layer differ.

        Raises:
            BrokenContractError: two experts of a layer compute the same.
        """
        for layer, expert in np.ndindex(self._outputs_LETH.shape[:2]):
            for other in self._like(layer, self._outputs_LETH[layer, expert]):
                if other != expert:
                    what = f"layer {layer}: experts {expert} and {other} compute the same"
                    raise BrokenContractError(f"at the start: {what}")

    def mistake_of(self, seen: Observation, placement: Placement) -> str | None:
        """What is wrong with a rank that should serve by this placement; None if it is right."""
        if seen.phy2log_LR.shape != placement.phy2log.shape:
            return f"phy2log has shape {seen.phy2log_LR.shape}, not {placement.phy2log.shape}"
        for layer, slot in np.argwhere(seen.phy2log_LR != placement.phy2log):
            routed, right = seen.phy2log_LR[layer, slot], placement.phy2log[layer, slot]
            return f"layer {layer}, slot {slot}: routes to it for expert {routed}, not {right}"
        expert_LO = placement.phy2log[:, seen.slots_O]
        right_LOTH = self._outputs_LETH[np.arange(len(expert_LO))[:, None], expert_LO]
        for layer, i in np.argwhere(~_same(seen.outputs_LOTH, right_LOTH)):
            like = self._like(layer, seen.outputs_LOTH[layer, i])
            seems = f"expert {like[0]}" if like else "no expert"
            where = f"layer {layer}, slot {seen.slots_O[i]}"
            return f"{where}: computes as {seems} does, not as expert {expert_LO[layer, i]}"
        return None

    def _like(self, layer: int, output_TH: FloatArray) -> list[int]:
        """The experts that compute this output."""
        like: list[int] = np.flatnonzero(_same(output_TH, self._outputs_LETH[layer])).tolist()
        return like


def _same(left: FloatArray, right: FloatArray) -> npt.NDArray[np.bool_]:
    """Whether outputs [..., T, H] come from the same weights."""
    largest = np.maximum(np.abs(left).max((-2, -1)), np.abs(right).max((-2, -1)))
    same: npt.NDArray[np.bool_] = np.abs(left - right).max((-2, -1)) <= _TOLERANCE * largest
    return same
