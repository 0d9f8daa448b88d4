"""evaluate: the definition of load, imbalance and moves."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.oracles.improving import held
from tests.solver.strategies import phy2logs, placed_loads
from trimtab_server.domain.errors import InvalidArgumentError
from trimtab_server.solver import evaluate


def test_the_load_of_an_expert_is_divided_evenly_over_its_replicas(backend):
    # GPU 0 holds experts 0 and 1, GPU 1 holds 0 and 2: 6/2 + 1 and 6/2 + 5.
    result = evaluate([[0, 1, 0, 2]], [[6, 1, 5]], 2, backend=backend)
    assert result.gpu_load.tolist() == [[4.0, 8.0]]
    assert result.imbalance.tolist() == [8 / 6]
    assert result.balancedness.tolist() == [pytest.approx(6 / 8)]


def test_gpus_are_reduced_before_layers(backend):
    # If loads were summed over layers first, these two GPUs would look even.
    result = evaluate([[0, 1], [0, 1]], [[3, 1], [1, 3]], 2, backend=backend)
    assert result.imbalance.tolist() == [1.5, 1.5]


def test_a_layer_without_load_is_balanced(backend):
    assert evaluate([[0, 1]], [[0, 0]], 2, backend=backend).imbalance.tolist() == [1.0]


@given(placed_loads(max_load=10**12))
def test_agrees_with_exact_fractions(backend, problem):
    phy2log, load, gpus = problem
    result = evaluate(phy2log, load, gpus, backend=backend)
    per = len(phy2log[0]) // gpus
    for layer, slots in enumerate(phy2log):
        share = [Fraction(load[layer][e]) / slots.count(e) for e in slots]
        loads = [sum(share[g * per : (g + 1) * per]) for g in range(gpus)]
        assert result.gpu_load[layer].tolist() == pytest.approx([float(x) for x in loads])
        exact = max(loads) * gpus / sum(loads) if sum(loads) else 1
        assert float(result.imbalance[layer]) == pytest.approx(float(exact))


@given(st.data(), st.integers(1, 4), st.integers(1, 4))
def test_moves_are_experts_new_to_a_gpu(backend, data, gpus, slots):
    experts = data.draw(st.integers(slots, gpus * slots))
    old, new = (data.draw(phy2logs(experts, gpus, slots)) for _ in range(2))
    result = evaluate(
        [new], [[1.0] * experts], gpus, current=[old], bytes_per_expert=7, backend=backend
    )
    moves = sum(len(b - a) for a, b in zip(held(old, gpus), held(new, gpus), strict=True))
    assert result.moves.tolist() == [moves]
    assert result.bytes_moved.tolist() == [7 * moves]


def test_copies_inside_a_gpu_are_not_moves(backend):
    result = evaluate([[1, 0, 2, 2]], [[1, 1, 1]], 2, current=[[0, 1, 2, 1]], backend=backend)
    assert result.moves.tolist() == [0]


@pytest.mark.parametrize(
    ("arguments", "field", "said"),
    [
        ({"num_gpus": 0}, "num_gpus", "0 is below 1"),
        ({"num_gpus": 3}, "num_replicas", "4 is not a multiple of num_gpus (3)"),
        ({"phy2log": [[0, 1, 2, 2]] * 2}, "phy2log", "has 2 layers, but load has 1"),
        ({"current": [[0, 1, 2]]}, "current", "(1, 3)"),
        ({"current": [[0, 1, 2, 9]]}, "current[0, 3]", "9"),
        ({"bytes_per_expert": -1}, "bytes_per_expert", "-1"),
    ],
)
def test_bad_input_is_named(arguments, field, said):
    valid = {"phy2log": [[0, 1, 2, 2]], "load": [[1, 2, 3]], "num_gpus": 2}
    with pytest.raises(InvalidArgumentError) as error:
        evaluate(**{**valid, **arguments})
    (violation,) = error.value.violations
    assert (violation.field, said in violation.description) == (field, True), violation
