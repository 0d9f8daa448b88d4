from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from tests.recording import Recording
from tests.servers import busy
from trimtab_server.domain.errors import (
    DeadlineExceededError,
    InvalidArgumentError,
    ResourceExhaustedError,
)
from trimtab_server.domain.placement import tensor_of
from trimtab_server.domain.topology import Topology
from trimtab_server.engine.config import Limits
from trimtab_server.engine.place_stream import PlaceStream
from trimtab_server.engine.plan_request import Options, Terms, UncheckedPlacement
from trimtab_server.engine.planner import Planner
from trimtab_server.engine.queue import SolverQueue
from trimtab_server.solver import evaluate
from trimtab_server.solver.backends.reference.backend import Reference
from trimtab_server.solver.packing import balanced_packing
from trimtab_server.solver.plan import Budget, place
from trimtab_server.solver.settings import settings_for

TOPOLOGY = Topology(num_replicas=20, num_gpus=4)
TERMS = Terms(TOPOLOGY)


@pytest.fixture
async def observer() -> Recording:
    return Recording()


@pytest.fixture
async def queue(observer: Recording) -> AsyncIterator[SolverQueue]:
    queue = SolverQueue(4, observer)
    yield queue
    await queue.close()


@pytest.fixture
async def planner(queue: SolverQueue, observer: Recording) -> Planner:
    return Planner(queue, Reference(), torch.device("cpu"), Limits(), "fast", observer)


def skewed_load(seed: int = 0, layers: int = 3) -> npt.NDArray[Any]:
    load = np.random.default_rng(seed).gamma(0.5, 100, (layers, 16))
    load.setflags(write=False)
    return load


async def test_place_answers_what_the_solver_plans(planner: Planner) -> None:
    placed = await planner.place(skewed_load(), TERMS)
    plan = place(skewed_load().copy(), TOPOLOGY, settings=settings_for("fast"))
    np.testing.assert_array_equal(placed.placement.phy2log, plan.phy2log.numpy())
    assert torch.equal(placed.after.imbalance, plan.after.imbalance)
    assert placed.moves is None
    assert placed.before is None


@pytest.mark.parametrize("budget", [None, Budget(max_moves=2)])
async def test_place_from_a_current_placement_counts_the_moves(
    planner: Planner, budget: Budget | None
) -> None:
    current = (await planner.place(skewed_load(0), TERMS)).placement
    placed = await planner.place(skewed_load(1), Terms(TOPOLOGY, budget), current)
    moved = evaluate(
        tensor_of(placed.placement), skewed_load(1).copy(), 4, current=tensor_of(current)
    ).moves.sum()
    assert placed.moves is not None
    assert len(placed.moves) == moved > 0
    assert budget is None or moved <= 2
    assert placed.before is not None


async def test_pack_answers_what_the_solver_packs(planner: Planner) -> None:
    weight, group = skewed_load(), np.arange(48).reshape(3, 16) % 5
    packed = await planner.pack(weight, 4, group, Options(overrides={"restarts": 2}))
    index, rank = balanced_packing(weight.copy(), 4, item_group=group, restarts=2)
    assert torch.equal(packed.pack_index, index)
    assert torch.equal(packed.rank_in_pack, rank)


async def test_options_choose_the_effort_instead_of_the_default(
    planner: Planner, observer: Recording
) -> None:
    await planner.place(skewed_load(), TERMS)
    await planner.place(skewed_load(), Terms(TOPOLOGY, options=Options("balanced")))
    await observer.until("stage", "plan", "reference", "fast")
    await observer.until("stage", "plan", "reference", "balanced")


async def test_each_stage_and_its_duration_are_reported(
    planner: Planner, observer: Recording
) -> None:
    first = await planner.place(skewed_load(0), TERMS)
    second = await planner.place(skewed_load(1), TERMS, first.placement)
    assert second.moves is not None
    await observer.until("moves_planned", len(second.moves))
    stages = {stage for stage, _, _ in observer.named("stage")}
    assert stages == {"plan", "align", "evaluate"}
    assert len(observer.named("solved")) == 2
    ratios = {(when, worst, median) for when, worst, median in observer.named("imbalance")}
    assert {when for when, _, _ in ratios} == {"before", "after"}
    worst = float(second.after.imbalance.max())
    assert ("after", worst, float(second.after.imbalance.median())) in ratios
    bound = second.after.bound
    assert (float(bound.max()), float(bound.median())) in observer.named("imbalance_bound")


async def test_a_load_that_does_not_fit_the_current_placement_is_refused(planner: Planner) -> None:
    current = (await planner.place(skewed_load(), TERMS)).placement
    with pytest.raises(InvalidArgumentError, match=r"load: shape \(2, 16\) .* 3 layers of 16"):
        await planner.place(skewed_load(layers=2), TERMS, current)


async def test_a_request_over_a_limit_never_reaches_the_queue(
    queue: SolverQueue, observer: Recording
) -> None:
    limits = Limits(max_tensor_elements=8)
    small = Planner(queue, Reference(), torch.device("cpu"), limits, "fast", observer)
    with pytest.raises(ResourceExhaustedError, match="load"):
        await small.place(skewed_load(), TERMS)
    with pytest.raises(ResourceExhaustedError, match="items"):
        await small.pack(skewed_load(), 4, None, Options())
    assert observer.named("queue_depth") == []


async def test_the_deadline_applies_to_the_queue(planner: Planner, queue: SolverQueue) -> None:
    soon = asyncio.get_running_loop().time() + 0.01
    async with busy(queue):
        with pytest.raises(DeadlineExceededError):
            await planner.place(skewed_load(), TERMS, deadline=soon)


async def test_warm_runs_every_stage(planner: Planner, observer: Recording) -> None:
    await planner.warm()
    await observer.until("stage", "improve", "reference", "fast")
    stages = {stage for stage, _, _ in observer.named("stage")}
    assert stages == {"plan", "pack", "align", "improve", "evaluate"}


@pytest.mark.concurrent
def test_after_warming_up_no_request_waits_for_a_compiler() -> None:
    # In a process of its own, where no other test has had anything compiled.
    subprocess.run([sys.executable, "-m", "tests.engine.warmed"], check=True, timeout=300)


async def test_a_stream_places_each_load_from_the_answer_before(planner: Planner) -> None:
    stream = PlaceStream(planner, TERMS)
    first = await stream.place(skewed_load(0))
    bad = skewed_load(1).copy()
    bad[0, 3] = -1
    with pytest.raises(InvalidArgumentError, match=r"load\[0, 3\]"):
        await stream.place(bad)
    assert stream.current is first.placement, "a load that fails leaves it in force"
    second = await stream.place(skewed_load(1))
    expected = await planner.place(skewed_load(1), TERMS, first.placement)
    assert second.placement.digest == expected.placement.digest
    assert stream.current is second.placement


async def test_the_budget_of_a_stream_counts_from_its_second_load(planner: Planner) -> None:
    stream = PlaceStream(planner, Terms(TOPOLOGY, Budget(max_moves=1)))
    assert (await stream.place(skewed_load(0))).moves is None
    second = await stream.place(skewed_load(1))
    assert second.moves is not None
    assert len(second.moves) == 1


@pytest.mark.parametrize("value", [np.nan, np.inf])
async def test_an_imbalance_that_is_not_finite_is_not_reported(
    planner: Planner, observer: Recording, value: float
) -> None:
    placed = await planner.place(skewed_load(), TERMS)
    ratios = torch.tensor([1.0, 1.0, value], dtype=torch.float64)
    # No load that is let in leads here for sure, so this is told by hand.
    planner._report_imbalance("before", replace(placed.after, imbalance=ratios))
    observer.moves_planned(0)
    await observer.until("moves_planned", 0)  # and so all that was told before
    assert [when for when, *_ in observer.named("imbalance")] == ["after"]


async def test_a_callers_placement_is_checked_before_a_load_comes(planner: Planner) -> None:
    told = UncheckedPlacement(np.arange(20).reshape(1, 20) % 16)
    assert (await planner.accept(told, TERMS)).num_experts == 16
    wrong = UncheckedPlacement(told.phy2log, b"x")
    with pytest.raises(InvalidArgumentError, match=r"current\.digest"):
        await planner.accept(wrong, TERMS)
