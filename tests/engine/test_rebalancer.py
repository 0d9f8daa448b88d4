"""The online loop of one deployment with the real solver: its decisions, and their times."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from tests.engine.scene import planning
from trimtab_protocol.placement import Placement
from trimtab_server.domain.placement import count_moves, placement_of, tensor_of
from trimtab_server.domain.topology import Topology
from trimtab_server.engine.load_aggregator import TotalCounts
from trimtab_server.engine.next_action import DeploymentSnapshot
from trimtab_server.engine.planner import Planner
from trimtab_server.engine.rebalancer import Rebalancer
from trimtab_server.loads.evidence import Evidence, Known
from trimtab_server.policy.decide import Reason
from trimtab_server.policy.policy import Policy
from trimtab_server.policy.trust import Judgement
from trimtab_server.solver import evaluate, place

# Two layers of 16 experts in 20 slots, five on each of four GPUs.
TOPOLOGY = Topology(num_replicas=20, num_gpus=4)
UNTOUCHED = placement_of(np.tile(np.arange(20) % 16, (2, 1)), 16, 4)
RNG = np.random.default_rng(0)
SKEWED = RNG.gamma(0.5, 100.0, (2, 16))
# Each expert once or twice, and as many of either on each GPU.
EVEN = np.tile(np.where(np.arange(16) < 4, 20.0, 10.0), (2, 1))
_ROW = [0, 1, 4, 5, 6, 1, 2, 7, 8, 9, 2, 3, 10, 11, 12, 3, 0, 13, 14, 15]
IDEAL = placement_of([_ROW, _ROW], 16, 4)
NEARLY = EVEN * np.linspace(0.9999, 1.0001, 16)
SHIFT = Policy(max_moves_per_layer=1)
"""So few moves that a completely new load needs a new plan."""


@pytest.fixture
async def planner() -> AsyncIterator[Planner]:
    async with planning() as planner:
        yield planner


def known(load_LE, tokens: float = 1e9, halves_HLE=None) -> Known:
    """A load that rests on this many tokens in each layer: by default, without any noise."""
    tokens_L = np.where(load_LE.any(1), tokens, 0.0)
    return Known(load_LE, Evidence(tokens_L, 1.0, halves_HLE))


def counted(load_LE, step: int, by: object = "w") -> TotalCounts:
    return TotalCounts(by, np.round(load_LE * (step + 1)).astype(np.int64))


def view(
    step: int, load_LE=SKEWED, served: Placement | None = UNTOUCHED, **changes
) -> tuple[DeploymentSnapshot, SimpleNamespace]:
    """A deployment at a step, and its load."""
    now, total = (
        changes.pop("known", known(load_LE)),
        changes.pop("counted", counted(load_LE, step)),
    )
    load = SimpleNamespace(known_load=lambda: now, total_counts=lambda: total)
    usual = {"at": step * 0.03, "step": step, "known_steps": step + 1}
    usual |= {"served": served, "planned_from": served}
    return DeploymentSnapshot(**{**usual, **changes}), load


async def rebalancer(
    planner: Planner, policy: Policy | None = None, size: int = 0, topology: Topology = TOPOLOGY
) -> Rebalancer:
    """A rebalancer that has seen the deployment before its first report."""
    loop = Rebalancer(planner, topology, size, policy or Policy())
    assert (await loop.decide(*view(-1))).decision.reason is Reason.NO_LOAD
    return loop


def imbalance_of(placement: Placement, load_LE) -> torch.Tensor:
    """The imbalance of each layer, [L]."""
    load_LE = torch.from_numpy(load_LE)
    return evaluate(tensor_of(placement), load_LE, placement.num_gpus).imbalance


async def test_a_load_that_is_out_of_balance_moves_experts(planner):
    loop = await rebalancer(planner, Policy(replan_gap=9.0))
    decision, target, *_ = await loop.decide(*view(100))
    assert decision.reason is Reason.IMPROVED
    assert decision.candidate.before == pytest.approx(imbalance_of(UNTOUCHED, SKEWED).mean())
    assert decision.candidate.after == pytest.approx(imbalance_of(target, SKEWED).mean())
    assert decision.candidate.after < decision.candidate.before
    assert 0 < decision.candidate.moves <= 2 * 4


async def test_all_moves_that_gain_are_made_if_a_few_are_not_enough(planner):
    """They are fewer than a new plan's, and reach about as much."""
    decision, target, *_ = await (await rebalancer(planner, SHIFT)).decide(*view(100))
    assert decision.reason is Reason.IMPROVED
    assert decision.candidate.moves > 2
    best = place(torch.from_numpy(SKEWED), TOPOLOGY, current=tensor_of(UNTOUCHED))
    assert imbalance_of(target, SKEWED).mean() <= 1.1 * best.after.imbalance.mean()
    assert decision.candidate.moves < len(best.moves)


async def test_a_new_plan_is_made_if_no_moves_are_enough(planner):
    """No swap helps here, since all experts but one have the same load."""
    load_LE = np.full((1, 8), 1.0)
    load_LE[0, 0] = 50.0
    topology = Topology(num_replicas=16, num_gpus=8)
    served = placement_of([np.arange(16) % 8], 8, 8)
    loop = await rebalancer(planner, Policy(replan_gap=0.0), topology=topology)
    decision, target, *_ = await loop.decide(*view(100, load_LE, served))
    best = place(torch.from_numpy(load_LE), topology, current=tensor_of(served))
    assert imbalance_of(target, load_LE) == pytest.approx(best.after.imbalance)
    assert decision.moves


async def test_repeated_decisions_come_to_rest(planner):
    """In the end, nothing is worth its moves."""
    loop, served, reasons = await rebalancer(planner), UNTOUCHED, []
    for step in range(16, 16 * 40, 16):
        decision, target, *_ = await loop.decide(*view(step, served=served))
        reasons.append(decision.reason)
        if decision.moves:
            served = target
            loop.rollout_started()
    assert imbalance_of(served, SKEWED).mean() < imbalance_of(UNTOUCHED, SKEWED).mean()
    assert reasons[0] in (Reason.IMPROVED, Reason.REPLANNED)
    assert set(reasons[-10:]) <= {Reason.BALANCED, Reason.SMALL_GAIN}


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"offer_blocked": "no group is complete yet"}, Reason.NOT_READY),
        ({"served": None}, Reason.NOT_READY),
        ({"known_steps": 15}, Reason.NO_LOAD),
        ({"load_LE": np.zeros((2, 16))}, Reason.NO_LOAD),
        ({"known": known(EVEN, 1000), "served": IDEAL}, Reason.NOT_ENOUGH_EVIDENCE),
        ({"known": known(EVEN), "served": IDEAL}, Reason.BALANCED),
        ({"known": known(NEARLY, 1e15), "served": IDEAL}, Reason.SMALL_GAIN),
    ],
)
async def test_why_nothing_moves(planner, changes, reason):
    loop = await rebalancer(planner, Policy(replan_gap=9.0))
    decision, target, *_ = await loop.decide(*view(100, **changes))
    assert decision.reason is reason
    assert not decision.moves
    assert (target is not None) is decision.planned


async def test_decisions_and_switches_are_at_least_some_steps_apart(planner):
    loop = await rebalancer(planner, Policy(every_steps=10, cooldown_steps=50, replan_gap=9.0))
    assert (await loop.decide(*view(100))).decision.moves
    loop.rollout_started()
    reasons = [(await loop.decide(*view(step))).decision.reason for step in (109, 110, 149, 150)]
    assert reasons[:3] == [Reason.TOO_SOON, Reason.COOLDOWN, Reason.COOLDOWN]
    assert reasons[3] is Reason.IMPROVED


async def test_steps_that_restart_mean_a_new_group(planner):
    loop = await rebalancer(planner, Policy(every_steps=1000, replan_gap=9.0))
    assert (await loop.decide(*view(5000))).decision.moves
    assert (await loop.decide(*view(5001))).decision.reason is Reason.TOO_SOON
    assert (await loop.decide(*view(3, known_steps=1000))).decision.moves


async def test_with_little_evidence_only_obvious_imbalance_is_mended(planner):
    """Once such an imbalance was found, other layers are looked at too."""
    load_LE = EVEN.copy()
    load_LE[0, 4] *= 1.4
    loop = await rebalancer(planner)
    still = await loop.decide(*view(100, known=known(load_LE, 2000), served=IDEAL))
    assert still.decision.reason is Reason.NOT_ENOUGH_EVIDENCE
    load_LE[1, 5] *= 20.0
    hot = known(load_LE, 2000)
    decision, target, *_ = await loop.decide(*view(200, known=hot, served=IDEAL))
    assert decision.moves
    assert (target.phy2log != IDEAL.phy2log).any(1).tolist() == [False, True]


async def test_imbalance_that_noise_explains_is_left_alone_until_there_is_more_evidence(planner):
    load_LE = EVEN * np.random.default_rng(1).normal(1.0, 0.15, (2, 16))
    loop, decisions = await rebalancer(planner), []
    for step, tokens in ((100, 1000), (200, 1e7)):
        seen = known(load_LE, tokens)
        decisions.append((await loop.decide(*view(step, known=seen, served=IDEAL))).decision)
    reasons = [each.reason for each in decisions]
    assert reasons == [Reason.NOT_ENOUGH_EVIDENCE, Reason.IMPROVED]
    doubtful, sure = (each.certainty for each in decisions)
    assert doubtful.noise > 1 + 10 * (sure.noise - 1) > 1
    assert (doubtful.tokens, sure.tokens) == (1000, 1e7)
    assert doubtful.sigma == pytest.approx((4 / 1000 / 2) ** 0.5)


async def test_a_gain_that_the_other_half_does_not_confirm_is_not_made(planner):
    """The GPU that is hot in one half, and so in the sum, is cold in the other half."""
    first_LE, second_LE = EVEN.copy(), EVEN.copy()
    first_LE[:, 4] *= 6.0
    second_LE[:, 4:7] *= 0.2
    confirmed_LE = first_LE.copy()
    loop = await rebalancer(planner)
    for step, halves, moves in (
        (100, (first_LE, second_LE), False),
        (200, (first_LE, confirmed_LE), True),
    ):
        halves_HLE = np.stack(halves)
        seen = known(halves_HLE.sum(0), 1e6, halves_HLE)
        decision, target, *_ = await loop.decide(*view(step, known=seen, served=IDEAL))
        assert decision.moves is moves
        assert (target.digest != IDEAL.digest) is moves


async def test_a_switch_is_judged_by_the_tokens_counted_after_it(planner):
    loop = await rebalancer(planner)
    assert (await loop.decide(*view(100))).decision.moves
    loop.rollout_started()
    early = await loop.decide(*view(140, served=IDEAL, known=known(EVEN)))
    assert early.judged is None
    judged = (await loop.decide(*view(164, served=IDEAL, known=known(EVEN)))).judged
    assert judged.step == 100
    assert judged.steps == 64
    assert judged.realised == pytest.approx(judged.promised, rel=0.01)
    assert judged.promised > 0


async def test_promises_that_are_not_kept_raise_the_floor(planner):
    loop, served, distrust = await rebalancer(planner), UNTOUCHED, []
    counts_LE = np.zeros((2, 16))
    for step in range(100, 100 + 64 * 12, 64):
        # Each time it sees another load than that which comes.
        load_LE = RNG.gamma(0.5, 100.0, (2, 16))
        counts_LE = counts_LE + load_LE[:, ::-1]
        total = TotalCounts("w", (64 * counts_LE).astype(np.int64))
        plan = await loop.decide(*view(step, load_LE, served, counted=total))
        distrust.append(plan.decision.certainty.distrust)
        if plan.decision.moves:
            served = plan.target
            loop.rollout_started()
    assert distrust[0] == 1
    assert 1 < distrust[-1] <= 4


async def test_a_plan_for_a_load_that_was_reset_meanwhile_moves_nothing(planner):
    """A warm-up may end at that moment."""

    class Forgetting(Planner):
        async def place(self, *args, **named):
            loop.reset()
            return await super().place(*args, **named)

    planner.__class__ = Forgetting
    loop = await rebalancer(planner)
    plan = await loop.decide(*view(100))
    assert (plan.decision.reason, plan.target) == (Reason.NO_LOAD, None)


async def test_a_reset_of_the_load_also_resets_distrust(planner):
    loop = await rebalancer(planner)
    for _ in range(20):
        loop._promises.trust.judge(Judgement(0, 64, 1.0, -1.0), 0.0)
    assert (await loop.decide(*view(100))).decision.certainty.distrust == 4
    loop.reset()
    assert (await loop.decide(*view(200))).decision.certainty.distrust == 1


async def test_the_limit_on_all_moves_holds_even_if_the_load_has_shifted(planner):
    found = []
    for limit in (0, 8):
        policy = Policy(max_moves_per_layer=1, max_moves=limit, replan_gap=0.2)
        decision = (await (await rebalancer(planner, policy)).decide(*view(100))).decision
        assert decision.reason is Reason.IMPROVED
        found.append(decision.candidate.moves)
    assert found[0] > 8 >= found[1] > 2


@pytest.mark.parametrize("restarted", ["the group", "a process"])
async def test_promises_to_an_earlier_group_or_process_are_not_judged(planner, restarted):
    loop = await rebalancer(planner)
    await loop.decide(*view(1000))
    loop.rollout_started()
    now = {"known_steps": 1000, "served": IDEAL, "known": known(EVEN)}
    if restarted == "the group":
        await loop.decide(*view(20, **now))
    else:
        now["counted"] = counted(SKEWED, 0, "another incarnation")
    assert (await loop.decide(*view(1100, **now))).judged is None


async def test_moves_that_cost_more_than_they_gain_are_not_made(planner):
    policy = Policy(replan_gap=9.0, horizon_steps=100)
    loop = await rebalancer(planner, policy, size=1 << 40)
    # The first decision does not know yet how long a step takes.
    await loop.decide(*view(16))
    assert (await loop.decide(*view(32))).decision.reason is Reason.TOO_COSTLY
    free = await rebalancer(planner, policy, size=1)
    await free.decide(*view(16))
    assert (await free.decide(*view(32))).decision.reason is Reason.IMPROVED


FLAT = Topology(num_replicas=8, num_gpus=4)
EIGHT = placement_of(np.tile(np.arange(8), (8, 1)), 8, 4)


async def test_layers_without_load_do_not_hide_those_that_are_out_of_balance(planner):
    """Six of eight layers have no load, like dense layers: they must not lower the mean."""
    load_LE = np.zeros((8, 8))
    load_LE[[2, 5]] = [107, 107, 100, 100, 100, 100, 93, 93]
    loop = await rebalancer(planner, topology=FLAT)
    decision, target, *_ = await loop.decide(*view(100, load_LE, served=EIGHT))
    assert decision.reason is Reason.IMPROVED
    assert decision.candidate.before == pytest.approx(1.07)
    assert decision.candidate.after == pytest.approx(1.0)
    assert decision.candidate.moves == 4
    moved_L = (target.phy2log != EIGHT.phy2log).any(1)
    assert moved_L.nonzero()[0].tolist() == [2, 5]


async def test_a_load_that_has_almost_faded_is_no_evidence(planner):
    """In one layer or in all. The certainty consists of numbers that JSON can represent."""
    loop, found = await rebalancer(planner, topology=FLAT), []
    for step, tokens_L in ((100, np.full(8, 1e-9)), (200, np.array([1e-9] * 7 + [1e9]))):
        seen = Known(np.ones((8, 8)), Evidence(tokens_L, 1.0))
        plan = await loop.decide(*view(step, served=EIGHT, known=seen))
        found.append(plan.decision.certainty)
    in_all, in_one = found
    assert in_all is None
    json.dumps(vars(in_one), allow_nan=False)
    assert in_one.noise < 1.001


async def test_only_the_layers_whose_load_has_shifted_move(planner):
    rng = np.random.default_rng(3)
    load_LE = rng.uniform(50.0, 150.0, (8, 8))
    served = placement_of(place(torch.from_numpy(load_LE), FLAT).phy2log, 8, 4)
    loop = await rebalancer(planner, Policy(max_moves_per_layer=1), topology=FLAT)
    # Of all layers one has shifted.
    load_LE[6] = 67.0
    load_LE[6, served.phy2log[6, :2]] = 200.0
    decision, target, order, _ = await loop.decide(*view(100, load_LE, served=served))
    assert decision.moves
    moved_L = (target.phy2log != served.phy2log).any(1)
    assert moved_L[6]
    assert order[0] == 6, "the layer that gains most comes first"
    before_L, after_L = (imbalance_of(each, load_LE) for each in (served, target))
    best_L = place(torch.from_numpy(load_LE), FLAT).after.imbalance
    assert after_L[6] <= 1.1 * best_L[6]
    assert (after_L <= before_L + 1e-12).all()
    assert decision.candidate.after == pytest.approx(after_L.mean())
    assert decision.candidate.moves == count_moves(served, target)
