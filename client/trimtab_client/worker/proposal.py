"""The checks that an offer has to pass before an engine sees it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from trimtab_client.exceptions import InvalidArgumentError, ProtocolError
from trimtab_client.placement import IntArray, Placement
from trimtab_client.worker.offer import SwitchOffer
from trimtab_protocol.messages import Offer


class Room(NamedTuple):
    """What a worker has room for.

    Attributes:
        gpus: the GPUs that it owns.
        staging_slots: expert weights that the staging of each has room for.
        max_layers: most layers that one switch may touch; 0: no limit.
    """

    gpus: Sequence[int]
    staging_slots: int
    max_layers: int


def check_offer(offer: Offer, base: Placement, room: Room) -> SwitchOffer:
    """What an offer asks of a worker that serves by `base`.

    Raises:
        ProtocolError: it does not fit `base` or itself, or there is no room for it.
    """
    transfers = offer.transfers
    placement = _placement(offer, base)
    if 0 < room.max_layers < len(transfers.layers):
        raise ProtocolError(
            f"{len(transfers.layers)} layers differ, and the limit is {room.max_layers}"
        )
    work = _Work(base.phy2log, placement.phy2log, base.num_gpus, room)
    work.check_receives(transfers.receives, transfers.receive_sources)
    work.check_copies(transfers.copies, transfers.receives)
    work.check_sends(transfers.sends)
    work.check_complete(transfers.receives, transfers.copies)
    _compute_maps(placement)
    return SwitchOffer(
        version=offer.version,
        base=offer.base,
        base_digest=offer.base_digest,
        placement=placement,
        base_placement=base,
        **vars(transfers),
    )


def _placement(offer: Offer, base: Placement) -> Placement:
    """The placement that the offer's rows make of `base`."""
    if offer.base_digest != base.digest:
        digests = f"{offer.base_digest.hex()}, and {base.digest.hex()}"
        raise ProtocolError(f"the digest of the base is {digests} is in force")
    transfers = offer.transfers
    layers, slots = base.phy2log.shape
    _check_ascending(transfers.layers, layers)
    for name in ("old_rows", "new_rows"):
        seen, wanted = list(getattr(transfers, name).shape), [len(transfers.layers), slots]
        if seen != wanted:
            raise ProtocolError(f"{name}: shape {seen} is not {wanted}")
    if not np.array_equal(base.phy2log[transfers.layers], transfers.old_rows):
        raise ProtocolError("old_rows: they are not the rows in force")
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


class _Work:
    """The checks of what one worker has to receive, send and copy."""

    def __init__(self, old_LR: IntArray, new_LR: IntArray, num_gpus: int, room: Room) -> None:
        self._old_LR, self._new_LR = old_LR, new_LR
        self._room = room
        self._per_gpu = old_LR.shape[1] // num_gpus
        self._num_gpus = num_gpus
        self._own_R = np.isin(np.arange(old_LR.shape[1]) // self._per_gpu, list(room.gpus))

    def check_receives(self, receives_M3: IntArray, sources_MX: IntArray) -> None:
        layer, slot, expert = self._columns("receives", receives_M3)
        _require(self._own_R[slot], "receives", "the slot is not this worker's")
        _require(self._new_LR[layer, slot] == expert, "receives", "the slot gets another expert")
        most = np.bincount(slot // self._per_gpu).max(initial=0)
        if most > self._room.staging_slots:
            limit = self._room.staging_slots
            raise ProtocolError(f"receives: {most} for one GPU, and staging has room for {limit}")
        if len(sources_MX) != len(receives_M3):
            counts = f"{len(sources_MX)} rows for {len(receives_M3)} receives"
            raise ProtocolError(f"receive_sources: {counts}")
        if not len(receives_M3):
            return
        known_MX = (sources_MX >= -1) & (sources_MX < self._num_gpus)
        _require(known_MX.all(1), "receive_sources", "there is no such GPU")
        _require(sources_MX[:, 0] >= 0, "receive_sources", "there is none")
        old_LGS = self._old_LR.reshape(len(self._old_LR), self._num_gpus, self._per_gpu)
        held_MXS = old_LGS[layer[:, None], sources_MX] == expert[:, None, None]
        holds_MX = held_MXS.any(2) | (sources_MX < 0)
        _require(holds_MX.all(1), "receive_sources", "a GPU does not hold the expert")

    def check_copies(self, copies_M4: IntArray, receives_M3: IntArray) -> None:
        layer, source, slot, expert = self._columns("copies", copies_M4)
        _require(self._own_R[slot], "copies", "the slot is not this worker's")
        same = source // self._per_gpu == slot // self._per_gpu
        _require(same, "copies", "the slots are of two GPUs")
        received_LR = np.full(self._old_LR.shape, -1)
        received_LR[receives_M3[:, 0], receives_M3[:, 1]] = receives_M3[:, 2]
        has = (self._old_LR[layer, source] == expert) | (received_LR[layer, source] == expert)
        _require(has, "copies", "the slot to copy from has another expert")
        _require(self._new_LR[layer, slot] == expert, "copies", "the slot gets another expert")

    def check_sends(self, sends_M4: IntArray) -> None:
        layer, source, slot, expert = self._columns("sends", sends_M4)
        _require(self._own_R[source], "sends", "the slot to send from is not this worker's")
        _require(self._old_LR[layer, source] == expert, "sends", "the slot has another expert")
        _require(self._new_LR[layer, slot] == expert, "sends", "the slot gets another expert")

    def check_complete(self, receives_M3: IntArray, copies_M4: IntArray) -> None:
        """Each own slot whose expert changes has to get its weights from somewhere."""
        missing_LR = (self._old_LR != self._new_LR) & self._own_R
        missing_LR[receives_M3[:, 0], receives_M3[:, 1]] = False
        missing_LR[copies_M4[:, 0], copies_M4[:, 2]] = False
        if missing_LR.any():
            layer, slot = np.argwhere(missing_LR)[0]
            raise ProtocolError(f"slot {slot} of layer {layer} changes, but nothing comes into it")

    def _columns(self, name: str, rows: IntArray) -> tuple[IntArray, ...]:
        """Layer, slots and expert of each row, in their ranges."""
        layer, *places, expert = rows.T
        layers, num_slots = self._old_LR.shape
        _require((layer >= 0) & (layer < layers), name, "there is no such layer")
        for place in places:
            _require((place >= 0) & (place < num_slots), name, "there is no such slot")
        return layer, *places, expert


def _compute_maps(placement: Placement) -> None:
    """Compute what a placement keeps: here, and not between two steps of the engine."""
    _ = placement.logcnt, placement.rank, placement.log2phy


def _check_ascending(layers_K: IntArray, layers: int) -> None:
    inside = (layers_K >= 0) & (layers_K < layers)
    _require(inside, "layers", "there is no such layer")
    if (np.diff(layers_K) <= 0).any():
        raise ProtocolError(f"layers: {layers_K.tolist()} do not ascend")


def _require(right_M: Any, name: str, wrong: str) -> None:
    if not right_M.all():
        raise ProtocolError(f"{name}[{int(np.argmin(right_M))}]: {wrong}")
