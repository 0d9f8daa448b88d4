"""The drop-in replacements, where the engine says which placement is in force."""

from __future__ import annotations

import threading

import numpy as np
import pytest
import torch

from trimtab_server.domain.errors import InvalidArgumentError
from trimtab_server.domain.topology import Topology
from trimtab_server.solver import (
    Budget,
    evaluate,
    improve,
    place,
    rebalance_experts,
    rebalance_phy2log,
)
from trimtab_server.solver.backends.cpu.threads import _pool, at_most_threads, for_parts
from trimtab_server.solver.rebalance import DEFAULT_BUDGET

LAYERS, EXPERTS, SLOTS, GPUS = 3, 16, 20, 4
SIZES = SLOTS, 1, 1, GPUS
LOAD, NEXT = np.exp(np.random.default_rng(4).normal(size=(2, LAYERS, EXPERTS)))


def kept(placement, old, gpus):
    """How many experts each layer's GPUs keep, each of `old`'s first slots counted for its GPU."""
    slots = placement.shape[1] // gpus
    return [
        sum(
            len(
                set(new[gpu * slots : gpu * slots + slots])
                & set(was[gpu * slots : gpu * slots + slots])
            )
            for gpu in range(gpus)
        )
        for new, was in zip(placement.tolist(), torch.as_tensor(old).tolist(), strict=True)
    ]


def gpu_loads(placement, load, gpus, backend):
    return evaluate(placement, load, gpus, backend=backend).gpu_load.sort(1).values


def test_the_placement_in_force_is_improved_by_a_few_moves(backend):
    old = rebalance_phy2log(LOAD, *SIZES, backend=backend)
    for budget in (None, Budget(max_moves_per_layer=1), Budget(max_moves=5, min_gain=0.01)):
        given = {} if budget is None else {"budget": budget}
        limits = vars(budget or DEFAULT_BUDGET)
        expected, _ = improve(old, NEXT, GPUS, backend=backend, **limits)
        new = rebalance_phy2log(NEXT, *SIZES, old, backend=backend, **given)
        assert torch.equal(new, expected)
        assert not torch.equal(new, old)
        phy2log, log2phy, logcnt = rebalance_experts(
            NEXT, *SIZES, old_global_expert_indices=old, backend=backend, **given
        )
        assert torch.equal(phy2log, expected)
        assert logcnt.sum(1).tolist() == [SLOTS] * LAYERS
        assert (log2phy >= 0).sum() == SLOTS * LAYERS


def test_without_a_budget_it_is_planned_anew_and_aligned(backend):
    old = rebalance_phy2log(LOAD, *SIZES, backend=backend)
    anew = rebalance_phy2log(NEXT, *SIZES, backend=backend)
    aligned = rebalance_phy2log(NEXT, *SIZES, old, budget=None, backend=backend)
    torch.testing.assert_close(*(gpu_loads(each, NEXT, GPUS, backend) for each in (anew, aligned)))
    assert sum(kept(aligned, old, GPUS)) > sum(kept(anew, old, GPUS))
    assert torch.equal(rebalance_phy2log(LOAD, *SIZES, old, budget=None, backend=backend), old)


def test_a_load_of_zeros_moves_nothing(backend):
    old = np.tile(np.arange(SLOTS) % EXPERTS, (LAYERS, 1))
    zeros = np.zeros((LAYERS, EXPERTS), np.int64)
    assert rebalance_phy2log(zeros, *SIZES, old, backend=backend).tolist() == old.tolist()


@pytest.mark.parametrize(
    ("slots_before", "empty", "slots", "gpus", "nodes"),
    [
        (20, (), 15 + 5, 4, 2),  # the same: what the others are compared with
        (25, (), 20, 4, 1),  # GPUs leave
        (16, (), 20, 4, 2),  # GPUs come
        (20, range(15, 20), 20, 4, 1),  # GPUs come, with empty slots
        (20, (3, 8), 20, 4, 2),
        (40, range(20), 20, 4, 1),  # nothing of what survives is known
        (30, range(10), 20, 4, 4),
    ],
)
def test_a_placement_that_cannot_stay_is_planned_anew_and_survivors_keep_their_gpus(
    backend, slots_before, empty, slots, gpus, nodes
):
    old = np.tile(np.arange(slots_before) % EXPERTS, (LAYERS, 1))
    old[:, list(empty)] = -1
    sizes = slots, nodes, nodes, gpus
    anew = rebalance_phy2log(NEXT, *sizes, backend=backend)
    for budget in (None, Budget(max_moves_per_layer=1)):
        # The same width without an empty slot could stay: it is the budget that decides there.
        could_stay = slots_before == slots and not empty
        if could_stay and budget:
            continue
        new = rebalance_phy2log(NEXT, *sizes, old, budget=budget, backend=backend)
        loads = (gpu_loads(each, NEXT, gpus, backend) for each in (anew, new))
        torch.testing.assert_close(*loads)
        same = np.full((LAYERS, slots), -1)
        same[:, : min(slots, slots_before)] = old[:, :slots]
        assert sum(kept(new, same, gpus)) >= sum(kept(anew, same, gpus))
        assert all(set(layer) == set(range(EXPERTS)) for layer in new.tolist())


def test_gpus_that_stay_keep_all_they_can_when_others_leave(backend):
    """The plan for three GPUs is known: whoever has it already, moves nothing."""
    sizes = 18, 1, 1, 3
    plan = rebalance_phy2log(NEXT, *sizes, backend=backend)
    gone = torch.arange(6).expand(LAYERS, 6)
    renamed = plan.reshape(LAYERS, 3, 6)[:, [2, 0, 1]].reshape(LAYERS, 18)
    wider = torch.cat([renamed, gone], 1)
    assert torch.equal(rebalance_phy2log(NEXT, *sizes, wider, backend=backend), renamed)


def test_a_layer_whose_group_lies_on_two_nodes_is_planned_anew(backend):
    """As engines start: the copies are wherever there is room."""
    sizes = SLOTS, 2, 2, GPUS
    hierarchical = rebalance_phy2log(LOAD, *sizes, backend=backend)
    spread = torch.arange(SLOTS) % EXPERTS
    old = torch.stack([hierarchical[0], spread, hierarchical[2]])
    new = rebalance_phy2log(NEXT, *sizes, old, backend=backend)
    improved, _ = improve(
        hierarchical, NEXT, GPUS, num_nodes=2, num_groups=2, **vars(DEFAULT_BUDGET), backend=backend
    )
    topology = Topology(SLOTS, GPUS, 2, 2)
    anew = place(NEXT[1:2], topology, current=old[1:2], backend=backend).phy2log
    assert torch.equal(new, torch.stack([improved[0], anew[0], improved[2]]))
    node_of = torch.arange(SLOTS) // (SLOTS // 2)
    assert all(len(set(node_of[new[1] // 8 == group].tolist())) == 1 for group in range(2))


@pytest.mark.parametrize(
    "dtype",
    [
        *(torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64),
        *(torch.bfloat16, torch.float16, torch.float32, torch.float64),
    ],
)
def test_any_dtype_of_an_engine_gives_int64_on_the_cpu_in_one_piece(backend, dtype):
    counts = torch.from_numpy(NEXT / NEXT.max() * 100).to(dtype)
    # A view of every second column, as a slice of an engine's buffer may be.
    buffer = counts.repeat_interleave(2, 1)
    old = torch.arange(SLOTS).expand(LAYERS, SLOTS) % EXPERTS
    if dtype in (torch.uint8, torch.int8, torch.int16, torch.int32):
        old = old.to(dtype)
    new = rebalance_phy2log(buffer[:, ::2], *SIZES, old, backend=backend)
    answers = (
        new,
        *rebalance_experts(buffer[:, ::2], *SIZES, old_global_expert_indices=old, backend=backend),
    )
    for answer in answers:
        assert (answer.dtype, answer.device.type) == (torch.int64, "cpu")
        assert answer.is_contiguous()
    expected = rebalance_phy2log(counts.double().tolist(), *SIZES, old.tolist(), backend=backend)
    assert torch.equal(new, expected)


@pytest.mark.usefixtures("threads")
def test_one_thread_computes_unless_told_otherwise():
    load = np.tile(NEXT, (400, 1))
    torch.set_num_threads(5)
    for given in ({"threads": None}, {"threads": 2}, {}):
        _pool.cache_clear()  # so that whatever threads it needs are new
        before = set(threading.enumerate())
        rebalance_phy2log(load, *SIZES, backend="cpu", **given)
        started = len(set(threading.enumerate()) - before)
        most = {"threads": 1, **given}["threads"] or 5
        assert min(1, most - 1) <= started < most


@pytest.mark.usefixtures("threads")
def test_a_limit_of_threads_holds_for_one_caller_alone():
    torch.set_num_threads(4)
    inside: list[int] = []
    with at_most_threads(1):
        for_parts(4, lambda first, end: inside.append(end - first))
        other: list[int] = []
        caller = threading.Thread(
            target=lambda: for_parts(4, lambda first, end: other.append(end - first))
        )
        caller.start()
        caller.join()
        assert other == [1] * 4
    assert inside == [4]
    after: list[int] = []
    for_parts(4, lambda first, end: after.append(end - first))
    assert after == [1] * 4


@pytest.mark.parametrize(
    ("arguments", "field", "said"),
    [
        ({"old": [[0, 1, 2, 3, 4, -2]]}, "old_global_expert_indices[0, 5]", "-2"),
        ({"old": [[0, 1, 2, 3, 4, 5]]}, "old_global_expert_indices[0, 5]", "5"),
        ({"old": [[0, 1, 2, 3, 4, 5, 5, 9]]}, "old_global_expert_indices[0, 5]", "5"),
        ({"old": [[0, 1, 2, 3, 4, 0]] * 2}, "old_global_expert_indices", "2 layers"),
        ({"old": [[0.0, 1, 2, 3, 4, 0]]}, "old_global_expert_indices", "float64"),
        ({"old": [[0, 1, 2, 3, 3, 0]]}, "old_global_expert_indices", "expert 4 has no slot"),
        ({"old": [[0, 1, 2, 3, 4, 0]], "budget": 4}, "budget", "4 is neither a Budget nor None"),
        ({"budget": 4}, "budget", "4 is neither a Budget nor None"),
        ({"threads": 0}, "threads", "0 is below 1"),
        ({"threads": 1.5}, "threads", "1.5"),
    ],
)
def test_bad_input_is_named(arguments, field, said):
    old = arguments.pop("old", None)
    with pytest.raises(InvalidArgumentError) as error:
        rebalance_phy2log(torch.ones(1, 5), 6, 1, 1, 2, old, **arguments)
    (violation,) = error.value.violations
    assert (violation.field, said in violation.description) == (field, True), violation
