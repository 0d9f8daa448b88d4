"""Backends may be called from any thread, with any layout, and in any batch."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tests.solver.agreement import assert_same
from tests.solver.strategies import KINDS, SEEDS, amounts, starts
from trimtab_server.domain.topology import Topology
from trimtab_server.solver import Backend, BackendName, Budget, Settings, backend_for
from trimtab_server.solver.backends.cpu.backend import Cpu
from trimtab_server.solver.backends.cpu.threads import for_parts
from trimtab_server.solver.backends.reference.backend import Reference

LAYERS, EXPERTS, TOPOLOGY = 7, 24, Topology(32, 8, 2, 4)
REPLICAS, GPUS = TOPOLOGY.num_replicas, TOPOLOGY.num_gpus
HOW = Settings(3, None, 3, seed=5)

Ask = Callable[[Backend, Tensor, Tensor], Any]
"""Asks a backend about a placement and a load."""

ASKS: dict[str, Ask] = {
    "replicate": lambda on, _, load_LE: on.replicate(load_LE, REPLICAS, 4),
    "pack": lambda on, _, load_LE: on.pack(load_LE, 6, None, HOW),
    "pack groups": lambda on, _, load_LE: on.pack(load_LE, 6, load_LE.long() % 9, HOW),
    "plan": lambda on, _, load_LE: on.plan(load_LE, TOPOLOGY, HOW),
    "improve": lambda on, plan_LR, load_LE: on.improve(
        plan_LR, load_LE, TOPOLOGY, Budget(6, None, 0.0, 1.5), 4
    ),
    "bound": lambda on, _, load_LE: (on.bound(load_LE, TOPOLOGY),),
    "balance": lambda on, plan_LR, load_LE: on.balance(plan_LR, load_LE, GPUS),
    "moves": lambda on, plan_LR, _: on.moves(plan_LR, plan_LR.flip(1), EXPERTS, GPUS),
    "align": lambda on, plan_LR, _: (on.align(plan_LR.flip(1), plan_LR, EXPERTS, GPUS, 2),),
    "slot_maps": lambda on, plan_LR, _: on.slot_maps(plan_LR, EXPERTS),
}


def problem(seed: int = 0, kind: str = "counts") -> tuple[Tensor, Tensor]:
    return starts(LAYERS, EXPERTS, REPLICAS, seed), amounts(kind, LAYERS, EXPERTS, seed)


def opened(backend: BackendName) -> Backend:
    return backend_for(backend, torch.device("cpu"))


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("ask", ASKS.values(), ids=list(ASKS))
def test_the_number_of_threads_changes_no_answer(ask):
    expected = ask(Reference(), *problem())
    for number in (1, 2, 3, 7):
        torch.set_num_threads(number)
        assert_same(ask(Cpu(), *problem()), expected)


@pytest.mark.usefixtures("threads")
def test_as_many_threads_work_as_torch_would_use():
    torch.set_num_threads(4)
    together = threading.Barrier(4, timeout=30)
    done: list[tuple[int, int]] = []

    def work(first: int, end: int) -> None:
        if len(done) < 4 and not together.broken:
            together.wait()
        done.append((first, end))

    for_parts(4, work)
    assert sorted(done) == [(0, 1), (1, 2), (2, 3), (3, 4)]


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("number", [1, 2, 5])
@pytest.mark.parametrize("batch", [1, 2, 3, 23, 100])
def test_parts_cover_each_row_of_the_batch_once(number, batch):
    torch.set_num_threads(number)
    rows: list[int] = []
    for_parts(batch, lambda first, end: rows.extend(range(first, end)))
    assert sorted(rows) == list(range(batch))


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("number", [1, 3])
def test_an_exception_is_raised_after_all_parts_have_ended(number):
    torch.set_num_threads(number)
    running: set[int] = set()

    def work(first: int, end: int) -> None:
        running.add(first)
        try:
            if first <= 5 < end:
                raise ZeroDivisionError(first)
        finally:
            running.discard(first)

    with pytest.raises(ZeroDivisionError):
        for_parts(12, work)
    assert not running


@pytest.mark.usefixtures("threads")
def test_a_caller_that_fails_waits_for_the_parts_of_other_threads():
    torch.set_num_threads(2)
    caller, begun, ended = threading.current_thread(), threading.Event(), threading.Event()

    def work(_first: int, _end: int) -> None:
        if threading.current_thread() is caller:
            assert begun.wait(30)
            raise ZeroDivisionError
        begun.set()
        time.sleep(0.2)
        ended.set()

    with pytest.raises(ZeroDivisionError):
        for_parts(2, work)
    assert ended.is_set()


@pytest.mark.usefixtures("threads")
def test_many_threads_get_their_own_answers_while_one_fails():
    torch.set_num_threads(3)
    cases = [(ask, problem(seed)) for seed in range(4) for ask in ASKS.values()]
    expected = [ask(Reference(), *case) for ask, case in cases]
    found: dict[tuple[int, int], Any] = {}
    failed: list[Exception] = []
    ready = threading.Barrier(8)

    def caller(number: int) -> None:
        ready.wait()
        for turn in range(len(cases)):
            index = (turn + 5 * number) % len(cases)
            ask, case = cases[index]
            found[number, index] = ask(Cpu(), *case)

    def failing() -> None:
        ready.wait()
        for _ in range(50):
            try:
                for_parts(20, lambda first, _: 1 // (first - 5 if first != 10 else 0))
            except ZeroDivisionError as error:
                failed.append(error)

    callers = [threading.Thread(target=caller, args=(number,)) for number in range(7)]
    for thread in (*callers, other := threading.Thread(target=failing)):
        thread.start()
    for thread in (*callers, other):
        thread.join()
    assert len(failed) == 50
    assert len(found) == 7 * len(cases)
    for (_, index), answer in found.items():
        assert_same(answer, expected[index])


def rows_of(answer: Any, layer: int) -> list[Any]:
    """The part of an answer for one layer, without counts of work, which are sums, and padding."""
    if hasattr(answer, "layer_slot_expert"):
        here = answer.layer_slot_expert[:, 0] == layer
        return [answer.layer_slot_expert[here, 1:].tolist(), unpadded(answer.source_gpus[here])]
    named = vars(answer).values() if hasattr(answer, "pack_index") else answer
    rows = [field[layer] for field in named if isinstance(field, Tensor)]
    return [unpadded(row) if row.ndim == 2 else row.tolist() for row in rows]


def unpadded(numbers: Tensor) -> list[list[int]]:
    """Rows of numbers >= 0 that are padded with -1."""
    return [[number for number in row if number >= 0] for row in numbers.tolist()]


@given(KINDS, SEEDS, st.sampled_from(list(ASKS)))
@settings(max_examples=60)
def test_a_row_gets_the_same_answer_in_a_batch_as_alone(backend, kind, seed, name):
    ask, on, (plan_LR, load_LE) = ASKS[name], opened(backend), problem(seed, kind)
    # A layer whose loads are much smaller than those of the others.
    load_LE[1] = load_LE[1] * 1e-9 + 1
    together = ask(on, plan_LR, load_LE)
    for layer in (0, 1, LAYERS - 1):
        alone = ask(on, plan_LR[layer : layer + 1], load_LE[layer : layer + 1])
        assert rows_of(together, layer) == rows_of(alone, 0)


def strided(tensor: Tensor) -> Tensor:
    """The same numbers as a view of every second column of a wider, transposed tensor."""
    wide = torch.full((2 * tensor.shape[1], tensor.shape[0] + 1), 7, dtype=tensor.dtype).T
    view = wide[:-1, ::2]
    view.copy_(tensor)
    assert not view.is_contiguous()
    return view


@pytest.mark.parametrize("ask", ASKS.values(), ids=list(ASKS))
def test_tensors_of_any_layout_are_read(backend, ask):
    plan_LR, load_LE = problem()
    found = ask(opened(backend), strided(plan_LR), strided(load_LE))
    assert_same(found, ask(Reference(), plan_LR, load_LE))


@pytest.mark.parametrize("ask", ASKS.values(), ids=list(ASKS))
def test_input_is_not_written_to_and_answers_share_nothing_with_it(backend, ask):
    given_, kept = problem(), problem()
    answer = ask(opened(backend), *given_)
    assert_same(given_, kept)
    mine = {tensor.untyped_storage().data_ptr() for tensor in given_}
    fields = vars(answer).values() if hasattr(answer, "__dict__") else answer
    theirs = {
        field.untyped_storage().data_ptr()
        for field in fields
        if isinstance(field, Tensor) and field.numel()
    }
    assert not mine & theirs


def test_a_placement_that_is_not_improved_is_copied(backend):
    plan_LR, load_LE = torch.arange(4).view(1, 4), torch.ones(1, 4, dtype=torch.float64)
    new_LR = opened(backend).improve(plan_LR, load_LE, Topology(4, 2), Budget(), 4).phy2log_LR
    new_LR[0, 0] = 3
    assert plan_LR.tolist() == [[0, 1, 2, 3]]
