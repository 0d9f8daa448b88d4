"""The cuda backend gives the reference's answers to the last bit, whatever the shape.

Without a GPU the kernels run in Triton's interpreter, which takes about a millisecond for each
operation of a program: so shapes are small, and examples few. `python -m tests.gpu` runs the same
cases, and large ones, on a device.
"""

from __future__ import annotations

import threading

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tests.solver.triton_cases import PACKS, PLANS, plan_of, random_rows
from tests.solver.triton_interpreter import DEVICE
from trimtab_server.domain.errors import InvalidArgumentError
from trimtab_server.domain.topology import Topology
from trimtab_server.solver import place
from trimtab_server.solver.backends.backend import Packing, Solved
from trimtab_server.solver.backends.cuda import runner as runners
from trimtab_server.solver.backends.cuda.backend import Cuda
from trimtab_server.solver.backends.cuda.seeds import seed_hash
from trimtab_server.solver.backends.cuda.shapes import Packs
from trimtab_server.solver.backends.reference.backend import Reference
from trimtab_server.solver.backends.reference.lpt import lpt
from trimtab_server.solver.backends.reference.noise import key_factors
from trimtab_server.solver.backends.reference.quantise import quantise
from trimtab_server.solver.backends.reference.separate import separate
from trimtab_server.solver.backends.select import backend_for
from trimtab_server.solver.settings import Settings

pytestmark = pytest.mark.slow

REFERENCE = Reference()


def no_fallback(*told: str) -> None:
    raise AssertionError(told)


@pytest.fixture(scope="module")
def cuda() -> Cuda:
    return Cuda(DEVICE, no_fallback)


def assert_same_packing(found: Packing, expected: Packing) -> None:
    assert found.pack_index.tolist() == expected.pack_index.tolist()
    assert found.rank_in_pack.tolist() == expected.rank_in_pack.tolist()
    assert (found.iterations, found.swaps) == (expected.iterations, expected.swaps)


def assert_same_plan(found: Solved, expected: Solved) -> None:
    assert found.phy2log_LR.tolist() == expected.phy2log_LR.tolist()
    assert (found.iterations, found.swaps) == (expected.iterations, expected.swaps)


@pytest.mark.parametrize("name", PACKS)
def test_packs_as_the_reference_does(cuda: Cuda, name: str) -> None:
    weight_XI, packs, group_XI, how = PACKS[name]
    expected = REFERENCE.pack(weight_XI, packs, group_XI, how)
    assert_same_packing(cuda.pack(weight_XI, packs, group_XI, how), expected)


@pytest.mark.parametrize("name", PLANS)
def test_plans_as_the_reference_does(cuda: Cuda, name: str) -> None:
    load_LE, topology, how = PLANS[name]
    expected = REFERENCE.plan(load_LE, topology, how)
    assert_same_plan(cuda.plan(load_LE, topology, how), expected)


@pytest.mark.parametrize("name", ["dead end", "dead ends"])
def test_cases_called_dead_ends_are(name: str) -> None:
    weight_XI, packs, group_XI, _ = PACKS[name]
    assert group_XI is not None
    weight_XI = quantise(weight_XI)
    dealt_XPS = lpt(weight_XI, weight_XI, packs, group_XI)
    repaired_XPS = separate(dealt_XPS, weight_XI, group_XI)
    assert (repaired_XPS != dealt_XPS).flatten(1).any(1).float().mean() >= 0.5


def any_settings(most_restarts: int) -> st.SearchStrategy[Settings]:
    return st.builds(
        Settings,
        top_k=st.integers(1, 8),
        max_iterations=st.sampled_from([0, 3, None]),
        restarts=st.integers(1, most_restarts),
        objective=st.sampled_from(["l2", "range"]),
        seed=st.integers(0, 2**64 - 1),
        tolerance=st.sampled_from([0.0, 0.1]),
    )


KINDS = st.sampled_from(["ties", "counts", "fractions", "skewed"])


@given(
    KINDS, st.integers(0, 999), st.integers(1, 6), st.integers(1, 4), st.booleans(), any_settings(2)
)
@settings(max_examples=10)
def test_packs_random_rows_as_the_reference_does(
    cuda: Cuda, kind: str, number: int, packs: int, slots: int, grouped: bool, how: Settings
) -> None:
    weight_XI = random_rows(kind, 2, packs * slots, number)
    group_XI = None
    if grouped:
        group_XI = random_rows("ties", 2, packs * slots, number + 1).long() % (packs * slots)
    expected = REFERENCE.pack(weight_XI, packs, group_XI, how)
    assert_same_packing(cuda.pack(weight_XI, packs, group_XI, how), expected)


@given(
    KINDS,
    st.integers(0, 999),
    st.integers(1, 5),
    st.integers(1, 4),
    st.integers(0, 8),
    any_settings(2),
)
@settings(max_examples=10)
def test_plans_random_loads_as_the_reference_does(
    cuda: Cuda, kind: str, number: int, gpus: int, slots: int, extra: int, how: Settings
) -> None:
    experts = max(1, gpus * slots - extra)
    load_LE, topology = random_rows(kind, 2, experts, number), Topology(gpus * slots, gpus)
    expected = REFERENCE.plan(load_LE, topology, how)
    assert_same_plan(cuda.plan(load_LE, topology, how), expected)


@pytest.mark.parametrize("seed", [0, 1, 2**32 - 1, 2**32, 2**64 - 1, 2**64 + 5, -3])
def test_hashes_seeds_as_the_reference_does(cuda: Cuda, seed: int) -> None:
    assert 0 <= seed_hash(seed) < 2**32
    weight_XI = random_rows("counts", 1, 12, 3)
    how = Settings(top_k=2, max_iterations=0, restarts=3, seed=seed)
    assert key_factors(seed, 3, 12, weight_XI.device).shape == (3, 12)
    expected = REFERENCE.pack(weight_XI, 4, None, how)
    assert_same_packing(cuda.pack(weight_XI, 4, None, how), expected)


def test_a_new_seed_or_load_needs_no_new_buffers() -> None:
    cuda = Cuda(DEVICE, no_fallback)
    for seed in range(3):
        load_LE, topology, how = plan_of(2, 6, 8, 4, seed)
        assert_same_plan(cuda.plan(load_LE, topology, how), REFERENCE.plan(load_LE, topology, how))
    assert cuda.kinds["ready"] == 1


def test_answers_belong_to_the_caller_and_input_is_not_changed(cuda: Cuda) -> None:
    load_LE, topology, how = plan_of(2, 6, 8, 4, 0)
    before = load_LE.clone()
    first = cuda.plan(load_LE, topology, how).phy2log_LR
    kept = first.clone()
    cuda.plan(load_LE.flip(1), topology, how)
    assert torch.equal(first, kept)
    assert torch.equal(load_LE, before)
    assert first.device == load_LE.device


def test_reads_input_that_is_not_contiguous(cuda: Cuda) -> None:
    load_EL, topology, how = random_rows("counts", 6, 2, 0), Topology(8, 4), Settings(2, None, 1)
    assert_same_plan(cuda.plan(load_EL.T, topology, how), REFERENCE.plan(load_EL.T, topology, how))


def test_threads_may_call_at_once(cuda: Cuda) -> None:
    requests = [plan_of(1, 6, 8, 4, seed) for seed in range(4)]
    found: list[Solved | None] = [None] * len(requests)
    ready = threading.Barrier(len(requests))

    def ask(number: int) -> None:
        ready.wait()
        found[number] = cuda.plan(*requests[number])

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(len(requests))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for answer, request in zip(found, requests, strict=True):
        assert answer is not None
        assert_same_plan(answer, REFERENCE.plan(*request))


def test_the_host_answers_unsupported_shapes_and_the_fallback_is_reported_once() -> None:
    told: list[tuple[str, ...]] = []
    cuda, how = Cuda(DEVICE, lambda *what: told.append(what)), Settings(max_iterations=1)
    weight_XI = random_rows("counts", 1, 4100, 0)
    found = cuda.pack(weight_XI, 4, None, how)
    assert told == [("cuda", "shape", "4100 items; at most 4096 fit")]
    assert_same_packing(found, REFERENCE.pack(weight_XI, 4, None, how))


@pytest.mark.parametrize(
    ("changed", "text"),
    [
        ({"packs": 2048, "items": 2048}, "2048 packs; at most 1024 fit"),
        ({"top_k": 65}, "65 top_k; at most 64 fit"),
        ({"packs": 1, "items": 2000}, "2000 slots of a pack; at most 1024 fit"),
        ({"rows": 10**7}, "bytes of scratch"),
        ({"rows": 0}, "nothing to pack"),
    ],
)
def test_names_the_limit_that_a_shape_exceeds(changed: dict[str, int], text: str) -> None:
    sizes = {"rows": 1, "items": 256, "packs": 128, "groups": 0, "restarts": 1, "top_k": 4}
    reason = Packs(**{**sizes, **changed}, max_swaps=1).unsupported()
    assert reason is not None
    assert text in reason


def test_the_host_answers_if_a_kernel_fails_and_the_failure_is_reported(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told: list[tuple[str, ...]] = []
    cuda = Cuda(DEVICE, lambda *what: told.append(what))
    load_LE, topology, how = plan_of(1, 6, 8, 4, 0)

    def fail(*_: object) -> None:
        raise torch.cuda.OutOfMemoryError("no memory left")

    for runner in (runners.PlainRunner, runners.GraphRunner):
        monkeypatch.setattr(runner, "run", fail)
    found = cuda.plan(load_LE, topology, how)
    assert told == [("cuda", "error", "no memory left")]
    assert_same_plan(found, REFERENCE.plan(load_LE, topology, how))


def test_the_host_answers_while_kernels_are_compiled() -> None:
    told: list[tuple[str, ...]] = []
    cuda = Cuda(DEVICE, lambda *what: told.append(what), wait_for_kernels=False)
    load_LE, topology, how = plan_of(2, 6, 8, 4, 0)
    expected = REFERENCE.plan(load_LE, topology, how)
    assert_same_plan(cuda.plan(load_LE, topology, how), expected)
    assert [what[:2] for what in told] == [("cuda", "cold")]
    cuda.wait_until_compiled()
    assert_same_plan(cuda.plan(load_LE, topology, how), expected)
    assert len(told) == 1, "the second one ran where it was meant to"


@pytest.mark.parametrize("wait_for_kernels", [True, False])
def test_the_host_answers_after_any_failure(
    monkeypatch: pytest.MonkeyPatch, wait_for_kernels: bool
) -> None:
    told: list[tuple[str, ...]] = []
    cuda = Cuda(DEVICE, lambda *what: told.append(what), wait_for_kernels=wait_for_kernels)
    load_LE, topology, how = plan_of(1, 6, 8, 4, 0)

    def fail(*_: object) -> None:
        raise PermissionError("Triton's cache cannot be written")

    for runner in (runners.PlainRunner, runners.GraphRunner):
        monkeypatch.setattr(runner, "run", fail)
    assert_same_plan(cuda.plan(load_LE, topology, how), REFERENCE.plan(load_LE, topology, how))
    cuda.wait_until_compiled()
    assert told[-1] == ("cuda", "error", "Triton's cache cannot be written")


def test_the_solver_accepts_the_backend_as_an_object(cuda: Cuda) -> None:
    load_LE, topology, how = plan_of(2, 6, 8, 4, 0)
    current = place(load_LE, topology, settings=how, backend=REFERENCE).phy2log

    def better(backend: Cuda | Reference) -> Tensor:
        return place(
            load_LE.flip(1), topology, current=current, settings=how, backend=backend
        ).phy2log

    assert torch.equal(better(cuda), better(REFERENCE))


@pytest.mark.skipif(DEVICE.type == "cuda", reason="there is a device")
def test_without_a_device_it_cannot_be_chosen_by_name() -> None:
    with pytest.raises(InvalidArgumentError, match="'cuda' cannot run here"):
        backend_for("cuda", torch.device("cuda", 0))
