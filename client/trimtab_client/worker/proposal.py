"""The checks that an offer has to pass before the engine gets it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from trimtab_client.exceptions import InvalidArgumentError, ProtocolError
from trimtab_client.placement import IntArray, Placement
from trimtab_client.worker.offer import SwitchOffer
from trimtab_protocol.messages import Offer


def check_offer(
    offer: Offer, base: Placement, gpus: Sequence[int], staging_slots: int, max_layers: int
) -> SwitchOffer:
    """Check the offer to a worker, and convert it for the engine.

    The worker serves with `base`, and `gpus` are its own; `WorkerOptions` describes the limits.

    Raises:
        ProtocolError: the offer contradicts `base` or itself, or exceeds these limits.
    """
    transfers, differing = offer.transfers, len(offer.transfers.layers)
    placement = _placement(offer, base)
    if 0 < max_layers < differing:
        raise ProtocolError(f"{differing} layers differ, but the limit is {max_layers}")
    checks = _TransferChecks(base, placement, gpus)
    checks.check_receives(transfers.receives, transfers.receive_sources, staging_slots)
    checks.check_copies(transfers.copies, transfers.receives)
    checks.check_sends(transfers.sends)
    checks.check_complete(transfers.receives, transfers.copies)
    # The cached maps are computed here, rather than between two steps of the engine.
    _ = placement.logcnt, placement.rank, placement.log2phy
    return SwitchOffer(
        version=offer.version,
        base=offer.base,
        base_digest=offer.base_digest,
        placement=placement,
        base_placement=base,
        **vars(transfers),
    )


def _placement(offer: Offer, base: Placement) -> Placement:
    """The placement that results from putting the rows of the offer into `base`."""
    if offer.base_digest != base.digest:
        digests = f"{offer.base_digest.hex()}, but that of the current placement is"
        raise ProtocolError(f"the digest of the base is {digests} {base.digest.hex()}")
    transfers = offer.transfers
    layers, slots = base.phy2log.shape
    layers_K = transfers.layers
    _require((layers_K >= 0) & (layers_K < layers), "layers", "there is no such layer")
    if (np.diff(layers_K) <= 0).any():
        raise ProtocolError(f"layers: {layers_K.tolist()} are not ascending")
    for name in ("old_rows", "new_rows"):
        shape, expected = list(getattr(transfers, name).shape), [len(transfers.layers), slots]
        if shape != expected:
            raise ProtocolError(f"{name}: shape {shape} is not {expected}")
    if not np.array_equal(base.phy2log[transfers.layers], transfers.old_rows):
        raise ProtocolError("old_rows: these are not the rows of the current placement")
    phy2log_LR = base.phy2log.copy()
    phy2log_LR[transfers.layers] = transfers.new_rows
    try:
        placement = Placement.of(phy2log_LR, base.num_experts, base.num_gpus)
    except InvalidArgumentError as error:
        raise ProtocolError(f"new_rows: {error}") from error
    if placement.digest != offer.digest:
        digests = f"{placement.digest.hex()}, but the offer says {offer.digest.hex()}"
        raise ProtocolError(f"the digest of the placement is {digests}")
    return placement


class _TransferChecks:
    """The checks of the weights that one worker has to receive, send and copy."""

    def __init__(self, base: Placement, new: Placement, gpus: Sequence[int]) -> None:
        self._old_LR, self._new_LR, self._num_gpus = base.phy2log, new.phy2log, base.num_gpus
        slots = base.phy2log.shape[1]
        self._per_gpu = slots // base.num_gpus
        self._own_R = np.isin(np.arange(slots) // self._per_gpu, gpus)

    def check_receives(
        self, receives_M3: IntArray, sources_MX: IntArray, staging_slots: int
    ) -> None:
        layer, slot, expert = self._columns("receives", receives_M3)
        _require(self._own_R[slot], "receives", "the slot is not on a GPU of this worker")
        _require(self._new_LR[layer, slot] == expert, "receives", "the slot gets another expert")
        most = np.bincount(slot // self._per_gpu).max(initial=0)
        if most > staging_slots:
            room = f"staging has room for {staging_slots}"
            raise ProtocolError(f"receives: {most} for one GPU, but {room}")
        rows, receives = len(sources_MX), len(receives_M3)
        if rows != receives:
            raise ProtocolError(f"receive_sources: {rows} rows for {receives} receives")
        if not len(receives_M3):
            return
        known_MX = (sources_MX >= -1) & (sources_MX < self._num_gpus)
        _require(known_MX.all(1), "receive_sources", "there is no such GPU")
        _require(sources_MX[:, 0] >= 0, "receive_sources", "the row has no source")
        old_LGS = self._old_LR.reshape(len(self._old_LR), self._num_gpus, self._per_gpu)
        held_MXS = old_LGS[layer[:, None], sources_MX] == expert[:, None, None]
        holds_MX = held_MXS.any(2) | (sources_MX < 0)
        _require(holds_MX.all(1), "receive_sources", "a GPU does not hold the expert")

    def check_copies(self, copies_M4: IntArray, receives_M3: IntArray) -> None:
        layer, source, slot, expert = self._columns("copies", copies_M4)
        _require(self._own_R[slot], "copies", "the slot is not on a GPU of this worker")
        same = source // self._per_gpu == slot // self._per_gpu
        _require(same, "copies", "the slots are on two different GPUs")
        received_LR = np.full(self._old_LR.shape, -1)
        received_LR[receives_M3[:, 0], receives_M3[:, 1]] = receives_M3[:, 2]
        has = (self._old_LR[layer, source] == expert) | (received_LR[layer, source] == expert)
        _require(has, "copies", "the slot to copy from has another expert")
        _require(self._new_LR[layer, slot] == expert, "copies", "the slot gets another expert")

    def check_sends(self, sends_M4: IntArray) -> None:
        layer, source, slot, expert = self._columns("sends", sends_M4)
        _require(self._own_R[source], "sends", "the slot is not on a GPU of this worker")
        _require(self._old_LR[layer, source] == expert, "sends", "the slot has another expert")
        _require(self._new_LR[layer, slot] == expert, "sends", "the slot gets another expert")

    def check_complete(self, receives_M3: IntArray, copies_M4: IntArray) -> None:
        """Each slot of this worker whose expert changes has to receive or copy its weights."""
        missing_LR = (self._old_LR != self._new_LR) & self._own_R
        missing_LR[receives_M3[:, 0], receives_M3[:, 1]] = False
        missing_LR[copies_M4[:, 0], copies_M4[:, 2]] = False
        if missing_LR.any():
            layer, slot = np.argwhere(missing_LR)[0]
            raise ProtocolError(f"slot {slot} of layer {layer} changes, but gets no weights")

    def _columns(self, name: str, rows: IntArray) -> tuple[IntArray, ...]:
        """Layer, slots and expert of each row, after a check of their ranges."""
        layer, *places, expert = rows.T
        layers, num_slots = self._old_LR.shape
        _require((layer >= 0) & (layer < layers), name, "there is no such layer")
        for place in places:
            _require((place >= 0) & (place < num_slots), name, "there is no such slot")
        return layer, *places, expert


def _require(holds_M: Any, name: str, fault: str) -> None:
    if not holds_M.all():
        raise ProtocolError(f"{name}[{int(np.argmin(holds_M))}]: {fault}")
