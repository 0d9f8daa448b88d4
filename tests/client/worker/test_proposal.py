"""The transfers that the server computes pass the checks of the workers."""

from __future__ import annotations

import numpy as np
import pytest

from trimtab_client import Placement, SwitchOffer, Version
from trimtab_client.exceptions import ProtocolError
from trimtab_client.worker.proposal import check_offer
from trimtab_protocol.messages import Offer, Transfers
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
