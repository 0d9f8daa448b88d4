"""Both clients against the real server, and against the solver itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from tests.servers import ServerProcess
from trimtab_client import (
    InvalidArgumentError,
    MoveBudget,
    Placement,
    ServingStatus,
    SolverOptions,
    Topology,
)
from trimtab_client.health import SOLVER_SERVICE
from trimtab_server import solver
from trimtab_server.domain import topology as domain

TOPOLOGY = Topology(num_replicas=40, num_gpus=8)


def loads(number: int, layers: int = 3, experts: int = 32) -> list[np.ndarray]:
    rng = np.random.default_rng(number)
    shares = rng.lognormal(sigma=0.8, size=(layers, experts))
    return [rng.poisson(1000 * shares) for _ in range(number)]


@pytest.fixture
def client(connect: Callable[..., Any], server: ServerProcess) -> Any:
    return connect(server.address)


@pytest.mark.parametrize("options", [{}, {"effort": "balanced"}, {"max_iterations": 0, "seed": 3}])
def test_place_is_what_the_solver_plans(client: Any, options: dict[str, Any]) -> None:
    [load] = loads(1)
    settings = solver.settings_for(**{"effort": solver.DEFAULT_EFFORT, **options})
    plan = solver.place(load, domain.Topology(40, 8), settings=settings)

    result = client.place(load, TOPOLOGY, options=SolverOptions(**options))

    assert result.placement.phy2log.tolist() == plan.phy2log.tolist()
    assert result.after.imbalance.tolist() == plan.after.imbalance.tolist()
    assert result.before is None
    assert len(result.moves) == 0


@pytest.mark.parametrize("nodes", [{}, {"num_nodes": 2, "num_groups": 4}], ids=["one", "two"])
def test_a_balance_carries_the_bound_that_the_solver_evaluates(
    client: Any, nodes: dict[str, int]
) -> None:
    [load] = loads(1)
    load[:, :8] *= 10  # a hot group, whose hottest expert alone is more than the mean GPU
    current = Placement.untouched(3, 32, 32, 8)

    result = client.place(load, Topology(32, 8, **nodes), current=current)

    bound = solver.evaluate(result.placement.phy2log.copy(), load, 8, **nodes).bound.numpy()
    assert (bound > 1).all()
    for balance in (result.before, result.after):
        assert balance.bound.dtype == np.float64
        assert balance.bound.tolist() == bound.tolist()
        assert balance.gap.tolist() == np.maximum(balance.imbalance / bound - 1, 0).tolist()
    assert (result.after.gap < result.before.gap).all()


def test_a_budget_bounds_the_moves_that_improve_a_placement(client: Any) -> None:
    [load] = loads(1)
    current = Placement.untouched(3, 32, 40, 8)

    result = client.place(load, TOPOLOGY, current=current, budget=MoveBudget(max_moves_per_layer=2))

    assert 1 <= result.moves.per_layer(3).max() <= 2
    assert (result.after.imbalance <= result.before.imbalance).all()
    assert result.before.imbalance.tolist() == current.balance(load).imbalance.tolist()
    moved = result.placement.phy2log[result.moves.layer, result.moves.slot]
    assert moved.tolist() == result.moves.expert.tolist()


def test_a_hierarchical_topology_keeps_groups_on_their_nodes(client: Any) -> None:
    [load] = loads(1)
    topology = Topology(num_replicas=40, num_gpus=8, num_nodes=2, num_groups=4)

    placement = client.place(load, topology).placement

    halves = placement.phy2log.reshape(3, 2, 20) // 8
    for layer in halves:
        assert set(layer[0].tolist()).isdisjoint(layer[1].tolist())


def test_a_refused_request_names_its_fields(client: Any) -> None:
    [load] = loads(1)
    with pytest.raises(InvalidArgumentError) as caught:
        client.place(load, Topology(num_replicas=40, num_gpus=7))

    [violation] = caught.value.field_violations
    assert violation.field.startswith("topology.num")
    assert "40" in violation.description


def test_pack_is_what_the_solver_packs(client: Any) -> None:
    weight = np.random.default_rng(0).integers(0, 100, (3, 12))
    pack_index, rank = solver.balanced_packing(torch.from_numpy(weight), 4)

    result = client.pack(weight, 4)

    assert result.pack_index.tolist() == pack_index.tolist()
    assert result.rank_in_pack.tolist() == rank.tolist()


def test_a_stream_starts_each_load_from_the_placement_before(client: Any) -> None:
    budget = MoveBudget(max_moves_per_layer=2)
    current = Placement.untouched(3, 32, 40, 8)
    windows = loads(6)
    bad = -windows[0]

    items = list(
        client.place_stream(
            [*windows[:3], bad, *windows[3:]], TOPOLOGY, current=current, budget=budget
        )
    )

    assert isinstance(items[3].error, InvalidArgumentError)
    for load, item in zip(windows, [*items[:3], *items[4:]], strict=True):
        alone = client.place(load, TOPOLOGY, current=current, budget=budget)
        current = item.unwrap().placement
        assert alone.placement == current


def test_the_server_is_ready(client: Any) -> None:
    client.wait_ready()

    assert client.health() is ServingStatus.SERVING
    assert client.health(SOLVER_SERVICE) is ServingStatus.SERVING
