"""What the benches of replays count by: shares of slots, shifts, windows in another order."""

from __future__ import annotations

import asyncio
from functools import partial

import numpy as np
import pytest
import torch

from tests.bench import aside, crowd, lockstep, policy, shifts, stationary
from tests.bench.loads import trace
from tests.bench.replay import REPLAYS
from tests.servers import server_process
from trimtab_client import Placement, Policy, Scope
from trimtab_server.policy.policy import Policy as ServerPolicy

PLACEMENT = Placement.of([[0, 1, 2, 0, 0, 1], [2, 1, 0, 2, 1, 0]], 3, 3)
LOAD = np.array([[8, 7, 0], [1, 2, 5]])


def test_replicas_process_shares_that_differ_by_a_token_at_most_and_add_up():
    shares = lockstep.divided(PLACEMENT, LOAD)
    assert shares.tolist() == [[3, 4, 0, 3, 2, 3], [3, 1, 1, 2, 1, 0]]


def test_what_all_gpus_count_is_the_load():
    shares = lockstep.divided(PLACEMENT, LOAD)
    counted = [lockstep.counted(PLACEMENT, shares, gpu) for gpu in range(3)]
    assert counted[1].tolist() == [[3, 0, 0], [1, 0, 2]]
    assert sum(counted).tolist() == LOAD.tolist()


@pytest.mark.parametrize(
    "draw", [stationary.correlated, partial(stationary.independent, tokens=100)]
)
@pytest.mark.parametrize("scope", Scope)
def test_workers_record_the_whole_window_in_any_scope(draw, scope):
    traffic = draw(np.random.default_rng(0), stationary.uniform_shares(2, 3), windows=4, ranks=3)
    recorded = [each(PLACEMENT) for each in stationary.recorded(traffic, scope)]
    assert {len(counts) for counts in recorded} == {1 if scope is Scope.GLOBAL else 3}
    totals = [sum(counts).tolist() for counts in recorded]
    assert totals == traffic.counts_TWLE.sum(1).tolist()


@pytest.mark.parametrize(
    ("live", "after"),
    [
        ([1.0, 1.0, 1.0], 0),
        ([0.5, 0.98, 0.99], 1),
        ([0.99, 0.5, 1.0], 2),
        ([0.5, 0.9, 0.97], None),
    ],
)
def test_a_plan_is_back_once_it_is_near_and_stays_so(live, after):
    assert shifts.windows_until_back(live, [1.0] * 3) == after


def test_shifts_are_where_the_label_changes():
    assert shifts.shifts("esft_dsv2lite") == [("law", 16), ("summary", 32), ("translation", 48)]
    assert shifts.shifts("gptoss20b_mixed") == []


def test_windows_in_turns_are_some_of_each_part():
    load = aside.in_turns("esft_dsv2lite", 4, 8)
    of_trace = trace("esft_dsv2lite")
    order = [*range(8), *range(16, 24), *range(32, 40), *range(48, 56), *range(8, 16)]
    assert np.array_equal(load[:40], of_trace[order])
    assert len(load) == len(of_trace)


def test_spliced_windows_come_from_where_they_would_have_come():
    load = aside.spliced("gptoss20b_phases", "gptoss20b_mixed", 32)
    assert np.array_equal(load[:32], trace("gptoss20b_phases")[:32])
    assert np.array_equal(load[32:64], trace("gptoss20b_mixed")[32:64])
    assert len(load) == 209


def test_a_quantile_lies_within_its_bucket():
    counts = {0.1: 0.0, 0.2: 50.0, 0.4: 100.0, float("inf"): 100.0}
    assert crowd.quantile(counts, 0.5) == pytest.approx(0.2)
    assert crowd.quantile(counts, 0.75) == pytest.approx(0.3)


@pytest.mark.slow
@pytest.mark.process
def test_a_server_serves_a_replay_as_its_loop_does_here():
    name = "esft_dsv2lite"
    load, topology = torch.from_numpy(trace(name))[13:20], REPLAYS[name]
    with server_process("--balance", "active", "--report-seconds", "0.01") as server:
        serving = lockstep.serve(
            server.address, name, load, topology, Policy(max_moves_per_layer=2)
        )
        served = asyncio.run(serving)
    looped = policy.looped(load, topology, ServerPolicy(max_moves_per_layer=2))
    # The server adds up its workers' rates: the last bit may differ, and with it which of two
    # moves that gain the same is made, and so whether a layer is far off in that window.
    assert served.switches > 1
    assert sum(served.moves) == pytest.approx(sum(looped.moves), rel=0.05)
    assert served.balancedness == pytest.approx(looped.balancedness, abs=1e-2)
    means = (np.mean(played.balancedness) for played in (served, looped))
    assert next(means) == pytest.approx(next(means), abs=2e-3)
