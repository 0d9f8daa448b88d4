"""The solver's functions take and refuse the same types of numbers as the client."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

import trimtab_client
from trimtab_client import Placement
from trimtab_server import solver
from trimtab_server.domain.errors import InvalidArgumentError
from trimtab_server.domain.topology import Topology

TAKEN = [
    "i1",
    "u1",
    "i2",
    "u2",
    "i4",
    "u4",
    "i8",
    "u8",
    "f2",
    "f4",
    "f8",
    "longdouble",
    ">f4",
    ">u2",
]
TAKEN_TENSORS = (
    *(torch.uint8, torch.int8, torch.uint16, torch.int16, torch.uint32, torch.int32),
    *(torch.uint64, torch.int64, torch.float16, torch.bfloat16, torch.float32, torch.float64),
    torch.float8_e4m3fn,
)
PLACEMENT = Placement.untouched(1, 3, 4, 2)
LOAD = np.array([[1, 2, 3]])


def solved(load: Any) -> list[list[int]]:
    """The placement of each function that takes a load; they have to agree on what they take."""
    placed = solver.place(load, Topology(4, 2)).phy2log.tolist()
    assert solver.rebalance_experts(load, 4, 1, 1, 2)[0].tolist() == placed
    assert solver.rebalance_phy2log(load, 4, 1, 1, 2).tolist() == placed
    return placed


FUNCTIONS: dict[str, Callable[[Any], object]] = {
    "place": lambda load: solver.place(load, Topology(4, 2)),
    "rebalance_experts": lambda load: solver.rebalance_experts(load, 4, 1, 1, 2),
    "rebalance_phy2log": lambda load: solver.rebalance_phy2log(load, 4, 1, 1, 2),
    "evaluate": lambda load: solver.evaluate([[0, 1, 2, 0]], load, 2),
    "balanced_packing": lambda load: solver.balanced_packing(load, 1),
    "replicate_experts": lambda load: solver.replicate_experts(load, 4),
}


@pytest.mark.parametrize("dtype", TAKEN)
def test_a_load_of_any_integer_or_floating_type_is_taken(dtype: str):
    load = LOAD.astype(dtype)

    assert solved(load) == solved(LOAD)
    assert PLACEMENT.balance(load).imbalance.tolist() == PLACEMENT.balance(LOAD).imbalance.tolist()


@pytest.mark.parametrize("dtype", TAKEN_TENSORS, ids=str)
def test_a_tensor_of_any_integer_or_floating_type_is_taken(dtype: torch.dtype):
    load = torch.tensor(LOAD.tolist()).to(dtype)

    assert solved(load) == solved(LOAD)
    assert PLACEMENT.balance(load).imbalance.tolist() == PLACEMENT.balance(LOAD).imbalance.tolist()


@pytest.mark.parametrize(
    ("load", "complaint"),
    [
        (LOAD.astype(bool), "dtype bool is not a real number type"),
        ([[True, False, True]], "dtype bool is not a real number type"),
        (torch.ones(1, 3, dtype=torch.bool), "dtype bool is not a real number type"),
        (LOAD.astype("c8"), "dtype complex64 is not a real number type"),
        (torch.ones(1, 3, dtype=torch.complex64), "dtype complex64 is not a real number type"),
        (LOAD.astype(object), "dtype object is not a real number type"),
        ([[1, None, 2]], "dtype object is not a real number type"),
        (LOAD.astype(str), "dtype <U21 is not a real number type"),
        (LOAD.astype("m8[s]"), "dtype timedelta64[s] is not a real number type"),
        (np.array([[1, 2**63, 3]], "u8"), "9223372036854775808 is beyond int64"),
        (torch.tensor([[1, 2**63, 3]], dtype=torch.uint64), "9223372036854775808 is beyond int64"),
    ],
    ids=str,
)
def test_other_types_are_refused_by_name_on_both_sides(load: Any, complaint: str):
    for name, call in FUNCTIONS.items():
        with pytest.raises(InvalidArgumentError) as refused:
            call(load)
        (violation,) = refused.value.violations
        assert violation.description == complaint, name
    with pytest.raises(trimtab_client.InvalidArgumentError) as refused_there:
        PLACEMENT.balance(load)
    (violation,) = refused_there.value.field_violations
    assert violation.description == complaint


@pytest.mark.parametrize("dtype", ["u1", "u2", "u4", "u8", "i1", "i8"])
def test_a_placement_of_any_integer_type_is_taken(dtype: str):
    current = np.array([[0, 1, 2, 0]], dtype)

    assert solver.evaluate(current, LOAD, 2).gpu_load.tolist() == [[2.5, 3.5]]
    assert Placement.of(current, 3, 2).phy2log.tolist() == [[0, 1, 2, 0]]


@pytest.mark.parametrize("dtype", ["bool", "f8", "c8"])
def test_a_placement_of_another_type_is_refused_by_name_on_both_sides(dtype: str):
    current = np.array([[0, 1, 1, 0]]).astype(dtype)
    complaint = f"dtype {current.dtype} is not "

    with pytest.raises(InvalidArgumentError, match=complaint):
        solver.evaluate(current, LOAD, 2)
    with pytest.raises(trimtab_client.InvalidArgumentError, match=complaint):
        Placement.of(current, 3, 2)
