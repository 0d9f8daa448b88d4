"""Placements are checked once, immutable, and named by a digest that others can compute."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.layouts import layouts, random_slots
from trimtab_server.domain.errors import InvalidArgumentError
from trimtab_server.domain.moves import moves_between
from trimtab_server.domain.placement import count_moves, placement_of, tensor_of


def test_the_digest_is_the_one_that_the_contract_defines():
    placement = placement_of([[0, 1, 2, 1]], num_experts=3, num_gpus=2)
    numbers = [1, 4, 3, 2, 0, 1, 2, 1]  # L, R, E, G, then the slots
    body = b"".join(n.to_bytes(4, "little") for n in numbers)
    assert placement.digest == hashlib.sha256(b"trimtab.placement.v1" + body).digest()


def test_every_difference_changes_the_digest():
    digests = {
        placement_of(slots, experts, gpus).digest
        for slots, experts, gpus in [
            ([[0, 1, 2, 1]], 3, 2),
            ([[0, 1, 1, 2]], 3, 2),
            ([[0, 1, 2, 1]], 3, 4),
            ([[0, 1], [1, 0]], 2, 2),
            ([[0, 1, 1, 0]], 2, 2),
        ]
    }
    assert len(digests) == 5


def test_it_cannot_be_changed():
    slots = torch.tensor([[0, 1, 2, 1]])
    placement = placement_of(slots, 3, 2)
    slots[0, 0] = 2
    tensor_of(placement)[0, 0] = 2
    assert placement.phy2log.tolist() == [[0, 1, 2, 1]]
    with pytest.raises(ValueError, match="read-only"):
        placement.phy2log[0, 0] = 2


@pytest.mark.parametrize(
    ("slots", "field"),
    [([[0, 1, 1]], "phy2log"), ([[0, 1, 2, 3]], "phy2log[0, 3]"), ([[0, -1, 2]], "phy2log[0, 1]")],
)
def test_a_placement_that_breaks_a_rule_is_refused(slots, field):
    with pytest.raises(InvalidArgumentError) as error:
        placement_of(np.array(slots), 3, 1)
    assert error.value.violations[0].field == field


@given(layouts(), st.integers(0, 1000))
def test_moves_are_counted_as_they_are_listed(layout, seed):
    phy2log_LR, experts, gpus = layout
    slots_LR = random_slots(seed, *phy2log_LR.shape, experts)
    one, other = (placement_of(each, experts, gpus) for each in (phy2log_LR, slots_LR))
    moves = moves_between(tensor_of(one), tensor_of(other), experts, gpus)
    assert count_moves(one, other) == len(moves)
    assert count_moves(one, one) == 0
