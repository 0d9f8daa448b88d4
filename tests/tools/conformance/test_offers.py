"""The kit makes the same offers as a server."""

from __future__ import annotations

import numpy as np
import pytest

from trimtab_client import Placement, Version
from trimtab_protocol.placement import Placement as ServerPlacement
from trimtab_server.domain.topology import Topology
from trimtab_server.rollout.differences import Differences
from trimtab_tools.conformance.offers import Work
from trimtab_tools.conformance.targets import large_target, random_placement


def server_side(placement: Placement) -> ServerPlacement:
    return ServerPlacement.of(placement.phy2log, placement.num_experts, placement.num_gpus)


def test_the_kit_asks_for_the_same_as_the_server() -> None:
    for seed in range(30):
        rng = np.random.default_rng(seed)
        gpus, per_gpu, layers = rng.integers(1, 5, 3).tolist()
        slots = gpus * per_gpu
        experts = int(rng.integers(1, slots + 1))
        base, target = (random_placement(layers, experts, slots, gpus, rng) for _ in range(2))
        topology = Topology(slots, gpus)
        theirs = Differences.between(server_side(base), server_side(target), topology, 1)

        ours = Work.between(base, target)

        assert [list(row) for row in ours.receives] == theirs.receives.tolist(), seed
        assert [list(row) for row in ours.copies] == theirs.copies.tolist(), seed
        sources = theirs.receive_sources.tolist()
        assert ours.sources == [sorted(gpu for gpu in row if gpu >= 0) for row in sources], seed


def test_each_receive_is_sent_by_its_first_source() -> None:
    rng = np.random.default_rng(0)
    base = random_placement(3, 8, 12, 4, rng)
    ranks = (0, 2), (1, 3)
    target = large_target(base, 2, rng)
    assert target is not None
    offers = Work.between(base, target).offers(ranks, 2, Version(1, 0), Version(1, 1), rng)
    due = {
        (layer, slot, expert): sources[0]
        for offer in offers
        for (layer, slot, expert), sources in zip(
            offer.receives.tolist(), offer.receive_sources.tolist(), strict=True
        )
    }
    sent = {
        (layer, to, expert): slot // 3
        for offer in offers
        for layer, slot, to, expert in offer.sends.tolist()
    }
    assert sent == due
    assert due


@pytest.mark.parametrize("staging_slots", [1, 2, 7])
def test_a_large_switch_exactly_fills_staging(staging_slots: int) -> None:
    rng = np.random.default_rng(1)
    base = random_placement(6, 20, 24, 4, rng)
    target = large_target(base, staging_slots, rng)
    assert target is not None
    work = Work.between(base, target)
    assert work.arrivals(range(4)) == staging_slots
