"""balanced_packing makes exactly the documented choices, and keeps its rules for any input."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.oracles import packing as oracle
from trimtab_server.domain.errors import InvalidArgumentError
from trimtab_server.solver import Settings, balanced_packing, pack
from trimtab_server.solver.backends.reference.noise import AMPLITUDE

SMALL = st.integers(0, 6).map(float)
COUNTS = st.integers(0, 10**12).map(float)
FRACTIONS = st.floats(0, 1e6, allow_subnormal=False)


@st.composite
def problems(draw: st.DrawFn) -> tuple[list[list[float]], int, list[list[int]] | None]:
    """Rows, number of packs, and groups or none; ties are common, sizes odd."""
    packs, slots, rows = draw(st.integers(1, 7)), draw(st.integers(1, 4)), draw(st.integers(1, 3))
    items = packs * slots
    kind = draw(st.sampled_from([SMALL, COUNTS, FRACTIONS]))
    weights = draw(
        st.lists(st.lists(kind, min_size=items, max_size=items), min_size=rows, max_size=rows)
    )
    groups = None
    if draw(st.booleans()):
        row = st.lists(st.integers(0, max(1, items // 2)), min_size=items, max_size=items)
        groups = draw(st.lists(row, min_size=rows, max_size=rows))
    return weights, packs, groups


def members(pack_index: torch.Tensor, rank: torch.Tensor, packs: int) -> list[list[list[int]]]:
    slots = pack_index.shape[1] // packs
    order = torch.argsort(pack_index * slots + rank, dim=1)
    return order.unflatten(1, (packs, slots)).tolist()


@given(
    problems(),
    st.integers(1, 5),
    st.sampled_from([0, 3, 20, None]),
    st.integers(1, 3),
    st.sampled_from(["l2", "range"]),
    st.integers(0, 2**64 - 1),
)
def test_makes_exactly_the_choices_of_the_oracle(
    backend, problem, top_k, max_iterations, restarts, objective, seed
):
    weights, packs, groups = problem
    settings = {
        "top_k": top_k,
        "max_iterations": max_iterations,
        "restarts": restarts,
        "objective": objective,
        "seed": seed,
    }
    index, rank = balanced_packing(weights, packs, item_group=groups, **settings, backend=backend)
    expected = [
        oracle.packed(
            row,
            packs,
            groups=None if groups is None else groups[x],
            amplitude=AMPLITUDE,
            **settings,
        )
        for x, row in enumerate(weights)
    ]
    assert members(index, rank, packs) == expected


@given(problems(), st.integers(1, 20))
def test_every_pack_gets_its_count_and_every_rank_once(backend, problem, top_k):
    weights, packs, groups = problem
    index, rank = balanced_packing(weights, packs, item_group=groups, top_k=top_k, backend=backend)
    assert index.dtype == rank.dtype == torch.int64
    items = index.shape[1]
    assert (index * (items // packs) + rank).sort(1).values.tolist() == [
        list(range(items)) for _ in weights
    ]


@given(problems())
def test_groups_share_a_pack_only_where_they_outnumber_the_packs(backend, problem):
    weights, packs, groups = problem
    items = len(weights[0])
    groups = groups or [[i // 2 for i in range(items)] for _ in weights]
    index, rank = balanced_packing(
        weights, packs, item_group=groups, max_iterations=None, backend=backend
    )
    for row, group in zip(members(index, rank, packs), groups, strict=True):
        unavoidable = sum(max(0, group.count(g) - packs) for g in set(group))
        assert oracle.doubled(row, group) == unavoidable


def test_a_greedy_dead_end_is_resolved(backend):
    # LPT deals 9, 8 | 7, and then only a pack that holds the item's group has room.
    weight = [[9.0, 8.0, 7.0, 1.0]]
    group = [[0, 1, 1, 0]]
    index, _ = balanced_packing(weight, 2, item_group=group, max_iterations=0, backend=backend)
    assert index[0, 0] != index[0, 3]
    assert index[0, 1] != index[0, 2]


@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e6, 1e12, 1e30])
def test_ties_and_scale_do_not_change_the_answer(backend, scale):
    weight = torch.tensor([[8.0, 7.0, 6.0, 5.0, 4.0, 3.0, 2.0, 1.0, 1.0]]) * scale
    index, _ = balanced_packing(weight, 3, max_iterations=None, backend=backend)
    loads = torch.zeros(3, dtype=torch.float64).scatter_add_(0, index[0], weight[0].double())
    assert (loads / scale).round().sort().values.tolist() == [12, 12, 13]


@pytest.mark.parametrize(
    ("weight", "packs"),
    [
        (torch.zeros(3, 12), 4),
        (torch.eye(1, 12) * 1e12, 4),
        (torch.full((2, 12), 1e12), 12),
        (torch.full((2, 12), 7), 1),
        (torch.full((2, 12), 1e300, dtype=torch.float64), 3),
        (torch.full((2, 12), 5e-324, dtype=torch.float64), 3),
    ],
    ids=["all zero", "one hot", "one item a pack", "one pack", "huge", "tiny"],
)
def test_degenerate_rows_are_packed(backend, weight, packs):
    index, _ = balanced_packing(
        weight, packs, top_k=16, max_iterations=None, restarts=3, backend=backend
    )
    counts = torch.stack([torch.bincount(row, minlength=packs) for row in index])
    assert (counts == weight.shape[1] // packs).all()


@given(problems(), st.integers(0, 2**31))
def test_batching_changes_no_row(backend, problem, seed):
    weights, packs, groups = problem
    settings = Settings(restarts=3, max_iterations=None, seed=seed)
    together = pack(weights, packs, item_group=groups, settings=settings, backend=backend)
    for x, row in enumerate(weights):
        group = None if groups is None else [groups[x]]
        alone = pack([row], packs, item_group=group, settings=settings, backend=backend)
        assert together.pack_index[x].tolist() == alone.pack_index[0].tolist()


def test_chunking_for_memory_changes_no_row(monkeypatch):
    generator = torch.Generator().manual_seed(3)
    weight = torch.rand(9, 24, generator=generator)
    group = torch.randint(0, 12, (9, 24), generator=generator)
    whole = balanced_packing(weight, 6, item_group=group, max_iterations=None, backend="reference")
    monkeypatch.setattr("trimtab_server.solver.backends.reference.memory.MAX_CANDIDATES", 1)
    chunked = balanced_packing(
        weight, 6, item_group=group, max_iterations=None, backend="reference"
    )
    assert all(torch.equal(a, b) for a, b in zip(whole, chunked, strict=True))


def test_each_stage_lowers_the_maximum_on_skewed_loads(backend):
    generator = torch.Generator().manual_seed(0)
    weight = torch.exp(torch.randn(16, 288, generator=generator).mul_(0.4)).double()

    def mean_max(**settings):
        index, _ = balanced_packing(weight, 32, **settings, backend=backend)
        loads = weight.new_zeros(16, 32).scatter_add_(1, index, weight)
        return float((loads.amax(1) / loads.mean(1)).mean())

    stages = [
        mean_max(max_iterations=0),
        mean_max(objective="range"),
        mean_max(),
        mean_max(max_iterations=None, top_k=8),
        mean_max(max_iterations=None, top_k=8, restarts=3),
    ]
    assert stages == sorted(stages, reverse=True)
    assert len(set(stages)) == len(stages)


def test_python_floats_keep_their_precision(backend):
    # The two differ by less than float32 can represent at this size.
    weight = [[0.0] * 10 + [1_000_000.0, 999_999.96875]]
    index, _ = balanced_packing(weight, 3, max_iterations=0, backend=backend)
    assert (index[0, 10], index[0, 11]) == (0, 1)
    assert index[0, 0:4].tolist() == [2] * 4
    assert index[0, 4] == 1, "the lighter of the two gets the next item"


def test_arrays_of_any_layout_are_read():
    weight = np.array([[1.0, 2.0, 3.0, 9.0]])
    expected = balanced_packing(weight, 2)[0].tolist()
    assert balanced_packing(weight[:, ::-1][:, ::-1], 2)[0].tolist() == expected
    assert balanced_packing(weight.astype(">f4"), 2)[0].tolist() == expected
    assert balanced_packing(np.asfortranarray(weight), 2)[0].tolist() == expected


def test_a_large_group_is_separated_in_little_memory_and_time(backend):
    # All items have one group: nothing can be separated, and every item is checked.
    index, _ = balanced_packing(
        torch.ones(1, 1024), 512, item_group=torch.zeros(1, 1024).long(), backend=backend
    )
    assert torch.bincount(index[0]).tolist() == [2] * 512


def test_counts_its_work(backend):
    settings = Settings(max_iterations=None)
    done = pack([[4.0, 3.0, 2.0, 1.0]], 2, settings=settings, backend=backend)
    assert (done.iterations, done.swaps) == (0, 0), "LPT balances it, so no swap is tried"
    # LPT deals 5 2 | 5 1 | 3 3, where no swap gains, not even that of 2 and 1.
    done = pack([[5.0, 5.0, 3.0, 3.0, 2.0, 1.0]], 3, settings=settings, backend=backend)
    assert (done.iterations, done.swaps) == (1, 0)


def test_tolerance_stops_a_row_that_is_even_enough(backend):
    weight = [[10.0, 9.0, 8.0, 7.0, 6.0, 5.0, 4.0, 3.0]]
    strict = pack(weight, 4, settings=Settings(max_iterations=None), backend=backend)
    loose = pack(weight, 4, settings=Settings(max_iterations=None, tolerance=10.0), backend=backend)
    assert loose.iterations == 0
    assert strict.iterations >= loose.iterations


@pytest.mark.parametrize(
    ("arguments", "field", "said"),
    [
        ({"weight": [1.0, 2.0]}, "weight", "rank 1"),
        ({"weight": [[]]}, "weight", "no elements"),
        ({"weight": [[1.0, float("nan")]]}, "weight[0, 1]", "nan"),
        ({"weight": [[1.0, float("inf")]]}, "weight[0, 1]", "inf"),
        ({"weight": [[1.0, 2.0], [-3.0, 0.0]]}, "weight[1, 0]", "-3.0"),
        ({"num_packs": 3}, "num_packs", "3 does not divide 4"),
        ({"num_packs": 0}, "num_packs", "0 is below 1"),
        ({"num_packs": 2.0}, "num_packs", "2.0 is not an integer"),
        ({"top_k": 1.5}, "top_k", "1.5 is not an integer"),
        ({"restarts": True}, "restarts", "True is not an integer"),
        ({"weight": [[1e308, 1e308, 1e308, 1e308]]}, "sum of weight[0, 0]", "inf"),
        ({"weight": torch.eye(4).to_sparse()}, "weight", "torch.sparse_coo"),
        ({"top_k": 0}, "top_k", "0"),
        ({"restarts": 0}, "restarts", "0"),
        ({"max_iterations": -1}, "max_iterations", "-1"),
        ({"objective": "l3"}, "objective", "l3"),
        ({"backend": "tpu"}, "backend", "tpu"),
        ({"tolerance": -0.5}, "tolerance", "-0.5"),
        ({"item_group": [[0, 1]]}, "item_group", "(1, 2)"),
        ({"item_group": [[0.5, 1.0, 2.0, 3.0]]}, "item_group", "float64"),
        ({"weight": [[1.0, 2.0], [3.0]]}, "weight", "is not an array of numbers"),
        ({"weight": [["heavy", "light"]]}, "weight", "dtype <U5 is not a real number type"),
        ({"weight": np.ones((1, 4), np.complex64)}, "weight", "complex64"),
    ],
)
def test_bad_input_is_named(arguments, field, said):
    with pytest.raises(InvalidArgumentError) as error:
        balanced_packing(**{"weight": [[1.0, 2.0, 3.0, 4.0]], "num_packs": 2, **arguments})
    (violation,) = error.value.violations
    assert violation.field == field
    assert said in violation.description
