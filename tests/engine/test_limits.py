from __future__ import annotations

from typing import Any

import pytest

from trimtab_server.domain.errors import ResourceExhaustedError
from trimtab_server.domain.topology import Topology
from trimtab_server.engine.config import Limits
from trimtab_server.engine.limits import check_pack, check_place
from trimtab_server.solver.settings import Settings, settings_for

LIMITS = Limits(max_tensor_elements=100_000, max_slots=10_000, max_restarts=8, max_top_k=16)


def test_sizes_within_the_limits_pass() -> None:
    settings = settings_for("balanced")
    check_pack(LIMITS, (10, 64), 8, settings, grouped=True)
    check_place(LIMITS, (10, 64), Topology(72, 8), settings, current=True, budget=True)


# Shape, packs, settings, groups or not, and the bound that is broken.
PACKS = [
    ((1, 8), 2, Settings(restarts=9), False, "options.restarts: 9 .* 8 .setting max_restarts"),
    ((1, 8), 2, Settings(top_k=17), False, "options.top_k: 17 .* 16 .setting max_top_k"),
    ((1, 10_001), 10_001, Settings(), False, "items of a row: 10001 .* 10000 .setting max_slots"),
    ((1001, 100), 10, Settings(), False, "items of all restarts: 100100"),
    ((501, 100), 10, Settings(restarts=2), False, "items of all restarts: 100200"),
    ((1, 1000), 2, Settings(), False, "candidate swaps of a row: 1000000"),
    ((1, 1000), 1, Settings(), False, "candidate swaps of a row: 1000000"),
    ((1, 1000), 101, Settings(), True, "restarts x items x packs of a row: 101000"),
    ((1, 1000), 51, Settings(restarts=2), True, "restarts x items x packs of a row: 102000"),
]


@pytest.mark.parametrize(("shape", "packs", "settings", "grouped", "names"), PACKS)
def test_a_packing_over_a_limit_is_refused_where_the_limit_applies(
    shape: tuple[int, int], packs: int, settings: Settings, grouped: bool, names: str
) -> None:
    with pytest.raises(ResourceExhaustedError, match=names) as refused:
        check_pack(LIMITS, shape, packs, settings, grouped=grouped)
    assert refused.value.retry_after is None
    if "x packs" in names:  # which only count for items with groups
        check_pack(LIMITS, shape, packs, settings, grouped=False)


IN_FORCE = {"current": True}
BUDGETED = {"current": True, "budget": True}

# Shape of the load, topology, what else there is, and the bound that is broken.
PLACES = [
    ((1, 1), Topology(10_001, 1), {}, "topology.num_replicas: 10001 .* .setting max_slots"),
    ((1001, 100), Topology(100, 1), {}, "load: 100100"),
    ((10, 101), Topology(200, 100), {}, "layers x GPUs x experts: 101000"),
    ((20, 100), Topology(5010, 10), {}, "items of all restarts: 100200"),
    ((1, 400), Topology(400, 40, num_groups=400), {}, "candidate swaps of a row: 160000"),
    ((1, 10), Topology(4000, 40), {}, "candidate swaps of a row: 160000"),
    ((10, 10), Topology(2400, 50), {}, "restarts x items x packs of a row: 120000"),
    ((3, 10), Topology(1000, 10, 2, 2), {}, "candidate swaps of a row: 160000"),
    ((41, 10), Topology(50, 1), IN_FORCE, "layers x slots x slots of a GPU: 102500"),
    ((1, 350), Topology(350, 70), BUDGETED, "slots x experts of a layer: 122500"),
]


@pytest.mark.parametrize(("shape", "topology", "more", "names"), PLACES)
def test_a_placement_over_a_limit_is_refused_where_the_limit_applies(
    shape: tuple[int, int], topology: Topology, more: dict[str, Any], names: str
) -> None:
    with pytest.raises(ResourceExhaustedError, match=names):
        check_place(LIMITS, shape, topology, Settings(), **more)
    if more:  # and not without it
        check_place(LIMITS, shape, topology, Settings(), current="budget" in more)


def test_the_swaps_of_improve_are_bounded_whatever_the_options_say() -> None:
    wide = Topology(800, 8)
    check_place(LIMITS, (1, 10), wide, Settings(top_k=1), current=True)
    with pytest.raises(ResourceExhaustedError, match="candidate swaps of a layer"):
        check_place(LIMITS, (1, 10), wide, Settings(top_k=1), current=True, budget=True)


def test_each_node_of_a_hierarchical_placement_counts_as_a_packing_of_its_own() -> None:
    check_place(LIMITS, (10, 10), Topology(3200, 400, 4, 4), Settings())
    with pytest.raises(ResourceExhaustedError, match="restarts x items x packs of a row: 1280000"):
        check_place(LIMITS, (10, 10), Topology(3200, 400, 4), Settings())


def test_invalid_sizes_pass_since_later_checks_name_the_rule() -> None:
    check_pack(LIMITS, (1, 8), 0, Settings())
    check_pack(LIMITS, (8,), 2, Settings())
