"""Checks of loads and placements: all types and layouts are read, and errors are named."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from trimtab_server.domain import arrays, balance, moves
from trimtab_server.domain.arrays import (
    _SERIAL,
    as_amounts,
    as_indices,
    check_phy2log,
    replica_counts,
)
from trimtab_server.domain.balance import Evaluation
from trimtab_server.domain.errors import InvalidArgumentError
from trimtab_server.domain.moves import moves_between, presence

# All tests run twice: as on the host, and as on a device, where torch computes.
pytestmark = pytest.mark.usefixtures("where")


@pytest.fixture(params=["host", "device"])
def where(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "device":
        for module in (arrays, balance, moves):
            monkeypatch.setattr(module, "unthreaded", lambda tensor: tensor)


TYPES = (torch.bfloat16, torch.float16, torch.float32, torch.float64, torch.uint8, torch.int64)


@pytest.mark.parametrize("dtype", TYPES, ids=str)
@pytest.mark.parametrize("shape", [(3, 5), (2, _SERIAL + 1), (_SERIAL + 1, 2), (300, 256)], ids=str)
def test_amounts_of_any_type_and_size_are_those_given(dtype, shape):
    given = torch.randint(0, 100, shape).to(dtype)
    for value in (given, given.T):
        amounts = as_amounts(value, "load")
        assert amounts.dtype == torch.float64
        assert torch.equal(amounts, value.to(torch.float64))


@pytest.mark.parametrize("dtype", [np.float32, np.dtype(">f8"), np.int16, np.uint16], ids=str)
def test_amounts_in_arrays_are_copied(dtype):
    given = np.random.default_rng(0).integers(0, 2, (4, 6)).astype(dtype)
    given.setflags(write=False)
    amounts = as_amounts(given, "load")
    assert amounts.tolist() == given.astype(float).tolist()
    amounts.fill_(7)
    assert given.max() <= 1


def test_amounts_are_read_from_views_that_torch_negates_lazily():
    lazy = torch.complex(torch.zeros(2, 3), -torch.ones(2, 3)).conj().imag
    assert lazy.is_neg()
    assert as_amounts(lazy, "load").tolist() == [[1.0] * 3] * 2


def refused(check, *args) -> tuple[str, str]:
    """The field and the rule of the only violation that it finds."""
    with pytest.raises(InvalidArgumentError) as error:
        check(*args)
    (violation,) = error.value.violations
    return violation.field, violation.description


@pytest.mark.parametrize(
    ("value", "rule"),
    [
        (float("nan"), "nan is not finite"),
        (float("inf"), "inf is not finite"),
        (-float("inf"), "-inf is not finite"),
        (-1.0, "-1.0 is negative"),
    ],
)
def test_the_first_amount_that_breaks_a_rule_is_named(value, rule):
    load = torch.ones(200, 300, dtype=torch.float64)
    load[150, 7] = load[160, 1] = value
    assert refused(as_amounts, load, "load") == ("load[150, 7]", rule)


def test_a_row_whose_sum_is_not_finite_is_named():
    load = torch.ones(5, 4, dtype=torch.float64)
    load[3] = 1e308
    assert refused(as_amounts, load, "load") == ("sum of load[3, 0]", "inf is not finite")


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int32, torch.int64], ids=str)
def test_indices_of_any_type_and_size_are_those_given(dtype):
    given = torch.randint(0, 100, (_SERIAL + 1, 3)).to(dtype)
    indices = as_indices(given, "current")
    assert indices.dtype == torch.int64
    assert torch.equal(indices, given.to(torch.int64))


@pytest.mark.parametrize(
    ("entries", "field", "said"),
    [
        ({(1, 2): 3}, "current[1, 2]", "3 is not an expert in [0, 3)"),
        ({(0, 1): -1}, "current[0, 1]", "-1 is not an expert in [0, 3)"),
        ({(1, 1): 0}, "current", "expert 1 has no slot in layer 1"),
    ],
)
def test_an_error_in_a_placement_is_named(entries, field, said):
    phy2log = torch.arange(3).repeat(2, 1)
    for cell, expert in entries.items():
        phy2log[cell] = expert
    assert refused(check_phy2log, phy2log, "current", 3) == (field, said)


def test_slots_are_counted_by_expert_and_by_gpu():
    phy2log = torch.tensor([[0, 0, 2, 1], [2, 1, 2, 0]])
    assert replica_counts(phy2log, 4).tolist() == [[2, 1, 1, 0], [1, 1, 2, 0]]
    assert presence(phy2log, 3, 2).tolist() == [
        [[True, False, False], [False, True, True]],
        [[False, True, True], [True, False, True]],
    ]


def test_moves_are_counted_by_layer():
    current = torch.tensor([[0, 1, 2, 1]] * 3)
    new = torch.tensor([[0, 1, 2, 1], [2, 1, 0, 1], [0, 1, 2, 1]])
    found = moves_between(current, new, 3, 2)
    assert found.per_layer(3).tolist() == [0, 2, 0]
    loads = torch.ones(3, 2), torch.ones(3), torch.ones(3)
    assert Evaluation.of(*loads, found, 5).bytes_moved.tolist() == [0, 10, 0]
    assert Evaluation.of(*loads).moves.tolist() == [0, 0, 0]
