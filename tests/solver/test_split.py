"""The best split of experts' loads over their replicas, against a linear program."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from scipy.optimize import linprog

from tests.solver.strategies import placed_loads
from trimtab_server.domain.errors import InvalidArgumentError
from trimtab_server.solver import best_split_loads, evaluate


def lightest_heaviest(phy2log_R, load_E, gpus):
    """The smallest load that the heaviest GPU can have: one variable a slot, and that load."""
    slots = len(phy2log_R)
    cost = np.r_[np.zeros(slots), 1.0]
    of_gpu = np.zeros((gpus, slots + 1))
    of_gpu[np.arange(slots) // (slots // gpus), np.arange(slots)] = 1.0
    of_gpu[:, -1] = -1.0
    of_expert = np.zeros((len(load_E), slots + 1))
    of_expert[phy2log_R, np.arange(slots)] = 1.0
    solved = linprog(cost, A_ub=of_gpu, b_ub=np.zeros(gpus), A_eq=of_expert, b_eq=load_E)
    assert solved.success, solved.message
    return solved.fun


@given(placed_loads(max_load=1000))
def test_the_heaviest_gpu_is_as_light_as_it_can_be(problem):
    phy2log, load, gpus = problem
    loads = best_split_loads(phy2log, load, gpus).numpy()
    load_LE = np.array(load, float)
    np.testing.assert_allclose(loads.sum(1), load_LE.sum(1))
    mean_L = load_LE.sum(1) / gpus
    for phy2log_R, load_E, load_G, mean in zip(
        np.array(phy2log), load_LE, loads, mean_L, strict=True
    ):
        best = lightest_heaviest(phy2log_R, load_E, gpus)
        assert best - 1e-6 * mean <= load_G.max() <= best + 1e-3 * mean + 1e-9


@given(placed_loads(max_load=1000))
def test_the_sum_of_squares_is_never_above_that_of_the_even_split(problem):
    phy2log, load, gpus = problem
    best = best_split_loads(phy2log, load, gpus)
    even = evaluate(phy2log, load, gpus).gpu_load
    assert (best.square().sum(1) <= even.square().sum(1) * (1 + 1e-9)).all()


def test_what_is_left_of_a_chain_is_passed_on():
    """GPU 0 has the hot expert, and shares one with GPU 1, which shares one with GPU 2, ..."""
    gpus = 8
    chain = [[(gpu - 1) % gpus if gpu else gpus, gpu] for gpu in range(gpus)]
    phy2log = np.array(chain)
    load = np.ones(gpus + 1)
    load[gpus] = 2.0  # on GPU 0 alone
    # Expert e is on GPU e, and on GPU e + 1 for e < 7.
    load[gpus - 1] = 1.0
    loads = best_split_loads([phy2log.ravel()], [load], gpus)
    mean = load.sum() / gpus
    best = lightest_heaviest(phy2log.ravel(), load, gpus)
    assert float(loads.max()) == pytest.approx(best, abs=1e-3 * mean)
    assert float(evaluate([phy2log.ravel()], [load], gpus).gpu_load.max()) > 1.2 * best


def test_two_replicas_on_one_gpu_are_one():
    loads = best_split_loads([[0, 0, 0, 1]], [[6.0, 0.0]], 2)
    assert loads.tolist() == [[3.0, 3.0]]


def test_without_load_there_is_none():
    assert best_split_loads([[0, 1, 0, 1]], [[0, 0]], 2).tolist() == [[0.0, 0.0]]


def test_bad_input_is_named():
    for arguments, field in (
        (([[0, 1]], [[1, -1]], 1), r"load\[0, 1\]"),
        (([[0, 2]], [[1, 1]], 1), r"phy2log\[0, 1\]"),
        (([[0, 1, 1]], [[1, 1]], 2), "num_gpus"),
        (([[0, 1]], [[1, 1]], 0), "num_gpus"),
    ):
        with pytest.raises(InvalidArgumentError, match=field):
            best_split_loads(*arguments)
