"""The checks of an offer: what the server computes passes, and what does not fit is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.client.worker.engine import FIRST, ONE, SECOND, ZERO
from tests.client.worker.server import offer_of
from trimtab.v1 import tensor_pb2
from trimtab.v1alpha1 import switch_pb2
from trimtab_client import Placement, SwitchOffer, Version
from trimtab_client.exceptions import ProtocolError
from trimtab_client.worker.proposal import check_offer
from trimtab_protocol.messages import Offer, Transfers, UnreadableOffer
from trimtab_protocol.wire.responses import Response, decode_response, encode_response
from trimtab_protocol.wire.tensors import encode_tensor
from trimtab_server.domain.topology import Topology
from trimtab_server.rollout.differences import Differences


def some(rng: np.random.Generator, layers: int, experts: int, slots: int, gpus: int) -> Placement:
    row = np.concatenate([np.arange(experts), rng.integers(0, experts, slots - experts)])
    return Placement.of(np.stack([rng.permutation(row) for _ in range(layers)]), experts, gpus)


def offered(transfers: Transfers, base: Placement, new: Placement) -> Offer:
    return Offer(Version(1, 1), new.digest, Version(1, 0), base.digest, transfers)


@pytest.mark.parametrize("seed", range(40))
def test_workers_accept_the_transfers_of_the_server(seed: int) -> None:
    rng = np.random.default_rng(seed)
    gpus, per_gpu, layers = rng.integers(1, 5, 3).tolist()
    slots = gpus * per_gpu
    experts = int(rng.integers(1, slots + 1))
    base, new = (some(rng, layers, experts, slots, gpus) for _ in range(2))
    if base == new:
        return
    differences = Differences.between(base, new, Topology(slots, gpus), 100)
    owner = rng.integers(0, 3, gpus)
    for worker in range(3):
        owned = tuple(np.flatnonzero(owner == worker).tolist())
        if not owned:
            continue
        asked = offered(differences.for_worker(owned), base, new)
        offer = check_offer(asked, base, owned, 1000, 0)
        assert offer.placement == new
        assert own(after(offer), owned, gpus) == own(new.phy2log, owned, gpus)


def after(offer: SwitchOffer) -> np.ndarray:
    """The experts in the slots after an engine has carried out the offer."""
    base_LR = offer.base_placement.phy2log
    received_LR = base_LR.copy()
    for layer, slot, expert in offer.receives.tolist():
        received_LR[layer, slot] = expert
    after_LR = received_LR.copy()
    for layer, source, slot, expert in offer.copies.tolist():
        held = base_LR[layer, source]
        after_LR[layer, slot] = held if held == expert else received_LR[layer, source]
    return after_LR


def own(phy2log_LR: np.ndarray, owned: tuple[int, ...], gpus: int) -> list[list[list[int]]]:
    return phy2log_LR.reshape(len(phy2log_LR), gpus, -1)[:, list(owned)].tolist()


def test_a_copy_of_an_expert_that_neither_lay_there_nor_arrives_is_refused() -> None:
    base = Placement.of([[0, 0, 1, 2]], 3, 1)
    new = Placement.of([[1, 1, 0, 2]], 3, 1)
    good = np.array([[0, 2, 0, 1], [0, 2, 1, 1], [0, 0, 2, 0]], np.int32)
    none = np.empty((0, 3), np.int32)
    values = {
        "layers": np.array([0], np.int32),
        "old_rows": base.phy2log,
        "new_rows": new.phy2log,
        "receives": none,
        "receive_sources": none,
        "sends": np.empty((0, 4), np.int32),
        "bytes_received": 0,
    }
    check_offer(offered(Transfers(copies=good, **values), base, new), base, (0,), 1, 0)
    # Slot 0 will hold expert 1, but by a copy: nothing may read that.
    good[1, 1] = 0
    with pytest.raises(ProtocolError, match=r"copies\[1\]: the slot to copy from has another"):
        check_offer(offered(Transfers(copies=good, **values), base, new), base, (0,), 1, 0)


def rows(*values: Any) -> tensor_pb2.Tensor:
    return encode_tensor(np.array(values), "i4")


def int32(shape: list[int], size: int) -> tensor_pb2.Tensor:
    return tensor_pb2.Tensor(data_type=tensor_pb2.DATA_TYPE_INT32, shape=shape, data=bytes(size))


SPOILT: dict[str, tuple[dict[str, Any], str]] = {
    "another digest": ({"digest": bytes(32)}, "the digest of the placement"),
    "another base": ({"base_digest": bytes(32)}, "the digest of the base"),
    "no base": ({"base": None}, "offer.base: is required"),
    "no layers": ({"layers": None}, "offer.layers.data_type: 0 is not a known type"),
    "a layer too high": ({"layers": rows(3)}, "layers[0]: there is no such layer"),
    "a negative layer": ({"layers": rows(-1)}, "layers[0]: there is no such layer"),
    "layers twice": ({"layers": rows(1, 1)}, "are not ascending"),
    "rows of other layers": ({"layers": rows(1, 2)}, "old_rows: shape [1, 6] is not [2, 6]"),
    "other old rows": ({"old_rows": rows([0] * 6)}, "not the rows of the current placement"),
    "an expert too high": ({"new_rows": rows([0, 1, 2, 3, 4, 0])}, "not an expert in [0, 4)"),
    "an expert without slot": ({"new_rows": rows([0, 1, 2, 2, 1, 0])}, "expert 3 has no slot"),
    "floats": (
        {"layers": encode_tensor(np.ones(1), "f4")},
        "layers.data_type: float32 is not int32",
    ),
    "a shape of no size": ({"layers": int32([0], 0)}, "layers.shape: [0] has a size below 1"),
    "negative shapes": (
        {"old_rows": int32([-1, -6], 24)},
        "old_rows.shape: [-1, -6] has a size below 1",
    ),
    "too few bytes": ({"old_rows": int32([1, 6], 20)}, "20 bytes"),
    "nothing received": ({"receives": None, "receive_sources": None}, "gets no weights"),
    "no sources": ({"receive_sources": None}, "receive_sources: 0 rows"),
    "receives of another width": (
        {"receives": rows([1, 2])},
        "receives.shape: [1, 2] is not [M, 3]",
    ),
    "a slot too high": ({"receives": rows([1, 6, 0])}, "receives[0]: there is no such slot"),
    "another expert received": ({"receives": rows([1, 0, 3])}, "gets another expert"),
    "a copy between GPUs": ({"copies": rows([1, 0, 3, 2])}, "the slots are on two different GPUs"),
    "a copy of another expert": ({"copies": rows([1, 0, 1, 3])}, "has another expert"),
    "a send of another expert": ({"sends": rows([1, 0, 3, 3])}, "sends[0]: the slot has another"),
}


@pytest.mark.parametrize("name", SPOILT)
def test_an_offer_that_does_not_fit_is_refused(name: str) -> None:
    fields, reason = SPOILT[name]
    message = encode_response(1, offer_of(ONE, ZERO, FIRST, SECOND, (0, 1))).offer
    check_offer(decode_response(Response(offer=message)), FIRST, (0, 1), 100, 0)
    for field, value in fields.items():
        message.ClearField(field)
        if value is not None:
            message.MergeFrom(switch_pb2.Offer(**{field: value}))

    spoilt = decode_response(Response(offer=message))
    if isinstance(spoilt, UnreadableOffer):
        assert reason in spoilt.reason
    else:
        with pytest.raises(ProtocolError) as refused:
            check_offer(spoilt, FIRST, (0, 1), 100, 0)
        assert reason in str(refused.value)


def test_an_offer_for_slots_of_another_worker_is_refused() -> None:
    offer = offer_of(ONE, ZERO, FIRST, SECOND, (0, 1))

    with pytest.raises(ProtocolError, match="not on a GPU of this worker"):
        check_offer(offer, FIRST, (0,), 100, 0)
