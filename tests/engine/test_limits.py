from __future__ import annotations

import pytest

from trimtab_server.domain.errors import ResourceExhaustedError
from trimtab_server.domain.topology import Topology
from trimtab_server.engine.config import Limits
from trimtab_server.engine.limits import check_pack, check_place
from trimtab_server.solver.settings import Settings, settings_for

LIMITS = Limits(max_tensor_elements=100_000, max_restarts=8, max_top_k=16)


def test_what_fits_passes() -> None:
    check_pack(LIMITS, (10, 64), 8, settings_for("balanced"))
    check_place(LIMITS, (10, 64), Topology(72, 8), settings_for("balanced"))


@pytest.mark.parametrize(
    ("settings", "names"),
    [
        (Settings(restarts=9), "options.restarts: 9"),
        (Settings(top_k=17), "options.top_k: 17"),
    ],
)
def test_settings_over_a_limit_are_refused_by_name(settings: Settings, names: str) -> None:
    with pytest.raises(ResourceExhaustedError, match=names) as refused:
        check_pack(LIMITS, (1, 8), 2, settings)
    assert refused.value.retry_after is None


@pytest.mark.parametrize(
    ("shape", "packs", "settings", "names"),
    [
        ((1001, 100), 10, Settings(), "items of all restarts: 100100"),
        ((501, 100), 10, Settings(restarts=2), "items of all restarts"),
        ((1, 1000), 2, Settings(), "candidate swaps"),
        ((1, 1000), 1, Settings(), "candidate swaps"),
    ],
)
def test_a_packing_that_would_hold_too_much_is_refused(
    shape: tuple[int, int], packs: int, settings: Settings, names: str
) -> None:
    with pytest.raises(ResourceExhaustedError, match=names):
        check_pack(LIMITS, shape, packs, settings)


@pytest.mark.parametrize(
    ("shape", "topology", "names"),
    [
        ((1001, 100), Topology(100, 1), "load: 100100"),
        ((10, 101), Topology(200, 100), "layers x GPUs x experts: 101000"),
        ((10, 100), Topology(11_000, 10), "items of all restarts"),
        ((1, 400), Topology(400, 40, num_groups=400), "candidate swaps"),
    ],
)
def test_a_placement_that_would_hold_too_much_is_refused(
    shape: tuple[int, int], topology: Topology, names: str
) -> None:
    with pytest.raises(ResourceExhaustedError, match=names):
        check_place(LIMITS, shape, topology, Settings())


def test_sizes_that_make_no_sense_are_left_to_the_checks_that_name_the_rule() -> None:
    check_pack(LIMITS, (1, 8), 0, Settings())
