"""The online loop of one deployment, with the real solver: what it decides, and when."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.recording import Recording
from trimtab_server.domain.placement import Placement, count_moves
from trimtab_server.domain.topology import Topology
from trimtab_server.engine.balancer import Balancer, View
from trimtab_server.engine.config import Limits
from trimtab_server.engine.planner import Planner
from trimtab_server.engine.queue import SolverQueue
from trimtab_server.policy.decide import Reason
from trimtab_server.policy.policy import Policy
from trimtab_server.solver import evaluate, place
from trimtab_server.solver.backends.reference.backend import Reference

# Two layers of 16 experts in 20 slots, five on each of four GPUs.
TOPOLOGY = Topology(num_replicas=20, num_gpus=4)
UNTOUCHED = Placement.of(np.tile(np.arange(20) % 16, (2, 1)), 16, 4)
RNG = np.random.default_rng(0)
SKEWED = RNG.gamma(0.5, 100.0, (2, 16))
EVEN = np.full((2, 16), 10.0)
SHIFT = Policy(max_moves_per_layer=1)
"""So little that a load which is all new needs a new plan."""


@pytest.fixture
async def planner() -> AsyncIterator[Planner]:
    observer = Recording()
    queue = SolverQueue(4, observer)
    yield Planner(queue, Reference(), torch.device("cpu"), Limits(), "fast", observer)
    await queue.close()


def view(step: int, load_LE=SKEWED, served: Placement | None = UNTOUCHED, **changes) -> View:
    at, known = step * 0.03, step + 1
    now = View(at, step, known, not_ready=None, load=lambda: load_LE, served=served)
    return replace(now, **changes)


async def balancer(
    planner: Planner,
    policy: Policy = Policy(),  # noqa: B008
    size: int = 0,
) -> Balancer:
    """One that has seen the deployment before its first report."""
    loop = Balancer(planner, TOPOLOGY, size, policy)
    assert (await loop.decide(view(-1))).decision.reason is Reason.NO_LOAD
    return loop


def imbalance(placement: Placement, load_LE) -> float:
    return float(evaluate(placement.tensor(), torch.from_numpy(load_LE), 4).imbalance.mean())


async def test_a_load_that_is_out_of_balance_moves_experts(planner):
    decision, target, _ = await (await balancer(planner, Policy(replan_gap=9.0))).decide(view(100))
    assert decision.reason is Reason.IMPROVED
    assert decision.candidate.before == pytest.approx(imbalance(UNTOUCHED, SKEWED))
    assert decision.candidate.after == pytest.approx(imbalance(target, SKEWED))
    assert decision.candidate.after < decision.candidate.before
    assert 0 < decision.candidate.moves <= 2 * 4


async def test_where_a_few_moves_do_not_get_far_there_is_a_new_plan(planner):
    decision, target, _ = await (await balancer(planner, SHIFT)).decide(view(100))
    assert decision.reason is Reason.REPLANNED
    assert imbalance(target, SKEWED) == pytest.approx(decision.candidate.after)
    assert decision.candidate.moves > 2


async def test_step_by_step_it_comes_to_rest(planner):
    """Until nothing is worth its moves, and then it leaves everything where it is."""
    loop, served, reasons = await balancer(planner), UNTOUCHED, []
    for step in range(16, 16 * 40, 16):
        decision, target, _ = await loop.decide(view(step, served=served))
        reasons.append(decision.reason)
        if decision.moves:
            served = target
            loop.switched()
    assert imbalance(served, SKEWED) < imbalance(UNTOUCHED, SKEWED)
    assert reasons[0] in (Reason.IMPROVED, Reason.REPLANNED)
    assert set(reasons[-10:]) <= {Reason.BALANCED, Reason.SMALL_GAIN}


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"not_ready": "no group is complete yet"}, Reason.NOT_READY),
        ({"served": None}, Reason.NOT_READY),
        ({"known_steps": 15}, Reason.NO_LOAD),
        ({"load": lambda: EVEN}, Reason.IMPROVED),
    ],
)
async def test_why_nothing_moves(planner, changes, reason):
    policy = Policy(replan_gap=9.0)
    loop = await balancer(planner, policy)
    decision, _, _ = await loop.decide(replace(view(100), **changes))
    assert decision.reason is reason


async def test_decisions_and_switches_keep_their_distance_in_steps(planner):
    loop = await balancer(planner, Policy(every_steps=10, cooldown_steps=50, replan_gap=9.0))
    assert (await loop.decide(view(100)))[0].moves
    loop.switched()
    reasons = [(await loop.decide(view(step)))[0].reason for step in (109, 110, 149, 150)]
    assert reasons[:3] == [Reason.TOO_SOON, Reason.COOLDOWN, Reason.COOLDOWN]
    assert reasons[3] is Reason.IMPROVED


async def test_steps_that_begin_anew_are_those_of_a_new_group(planner):
    loop = await balancer(planner, Policy(every_steps=1000, replan_gap=9.0))
    assert (await loop.decide(view(5000)))[0].moves
    assert (await loop.decide(view(5001)))[0].reason is Reason.TOO_SOON
    assert (await loop.decide(view(3, known_steps=1000)))[0].moves


async def test_moves_that_cost_more_than_they_gain_are_not_made(planner):
    policy = Policy(replan_gap=9.0, horizon_steps=100)
    loop = await balancer(planner, policy, size=1 << 40)
    # The first decision does not know yet how long a step takes.
    await loop.decide(view(16))
    assert (await loop.decide(view(32)))[0].reason is Reason.TOO_COSTLY
    free = await balancer(planner, policy, size=1)
    await free.decide(view(16))
    assert (await free.decide(view(32)))[0].reason is Reason.IMPROVED


FLAT = Topology(num_replicas=8, num_gpus=4)
EIGHT = Placement.of(np.tile(np.arange(8), (8, 1)), 8, 4)


async def flat_balancer(planner: Planner, policy: Policy) -> Balancer:
    loop = Balancer(planner, FLAT, 0, policy)
    await loop.decide(view(-1, served=EIGHT))
    return loop


async def test_layers_without_load_do_not_hide_those_that_are_out_of_balance(planner):
    """Six of eight have none, as dense layers do: in the mean of all, the others would pass."""
    load_LE = np.zeros((8, 8))
    load_LE[[2, 5]] = [107, 107, 100, 100, 100, 100, 93, 93]
    decision, target, _ = await (await flat_balancer(planner, Policy())).decide(
        view(100, load_LE, served=EIGHT)
    )
    assert decision.reason is Reason.IMPROVED
    assert decision.candidate.before == pytest.approx(1.07)
    assert decision.candidate.after == pytest.approx(1.0)
    assert decision.candidate.moves == 4
    moved_L = (target.phy2log != EIGHT.phy2log).any(1)
    assert moved_L.nonzero()[0].tolist() == [2, 5]


async def test_without_any_load_there_is_nothing_to_decide(planner):
    loop = await flat_balancer(planner, Policy())
    decision, target, _ = await loop.decide(view(100, np.zeros((8, 8)), served=EIGHT))
    assert (decision.reason, target) == (Reason.NO_LOAD, None)


async def test_only_the_layers_whose_load_has_shifted_are_planned_anew(planner):
    rng = np.random.default_rng(3)
    load_LE = rng.uniform(50.0, 150.0, (8, 8))
    policy = Policy(max_moves_per_layer=1, start_above=1.0, stop_below=1.0)
    loop = await flat_balancer(planner, policy)
    served = (await loop._plan(load_LE, EIGHT, None)).placement
    # Of all layers one has shifted, and another one a little.
    load_LE[6] = 67.0
    load_LE[6, served.phy2log[6, :2]] = 200.0
    load_LE[1, 0] *= 1.1
    decision, target, order = await loop.decide(view(100, load_LE, served=served))
    assert decision.reason is Reason.REPLANNED
    moved_L = (target.phy2log != served.phy2log).any(1)
    assert set(moved_L.nonzero()[0].tolist()) <= {1, 6}
    assert order[0] == 6, "the layer that gains most comes first"
    loads = torch.from_numpy(load_LE)
    found, best = (
        evaluate(plan, loads, 4)
        for plan in (target.tensor(), (await loop._plan(load_LE, served, None)).placement.tensor())
    )
    assert found.imbalance[6] == best.imbalance[6]
    assert decision.candidate.after == pytest.approx(float(found.imbalance.mean()))
    moves = count_moves(served, target)
    assert decision.candidate.moves == moves
    assert moves < count_moves(served, Placement.of(best_everywhere(load_LE), 8, 4))


def best_everywhere(load_LE: np.ndarray) -> torch.Tensor:
    """A new plan of all layers, as if nothing were in force."""
    return place(load_LE, FLAT, backend="reference").phy2log
