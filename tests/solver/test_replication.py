"""replicate_experts makes the largest load per replica as small as possible."""

from __future__ import annotations

from fractions import Fraction
from itertools import product

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from trimtab_server.domain.errors import InvalidArgumentError
from trimtab_server.solver import replicate_experts

ROWS = st.lists(st.integers(0, 10**6), min_size=1, max_size=9)


def greedy(row: list[int], num_replicas: int, limit: int) -> list[int]:
    """Experts in the order in which they get slots, computed with exact fractions."""
    given_to = list(range(len(row)))
    while len(given_to) < num_replicas:
        share = [Fraction(w, given_to.count(e)) for e, w in enumerate(row)]
        free = [e for e in range(len(row)) if given_to.count(e) < limit]
        given_to.append(max(free, key=lambda e: (share[e], -e)))
    return given_to


@given(ROWS, st.integers(0, 9), st.integers(1, 9))
def test_each_further_slot_goes_to_the_highest_load_per_replica(backend, row, extra, cap):
    replicas = len(row) + extra
    limit = max(cap, -(-replicas // len(row)))
    phy2log, rank, logcnt = replicate_experts([row], replicas, max_replicas=cap, backend=backend)
    assert phy2log[0].tolist() == greedy(row, replicas, limit)
    assert logcnt[0].tolist() == [phy2log[0].tolist().count(e) for e in range(len(row))]
    seen = phy2log[0].tolist()
    assert rank[0].tolist() == [seen[:i].count(e) for i, e in enumerate(seen)]


@given(st.lists(st.integers(0, 50), min_size=1, max_size=4), st.integers(0, 4))
def test_no_other_choice_has_a_smaller_largest_replica(backend, row, extra):
    replicas = len(row) + extra
    _, _, logcnt = replicate_experts([row], replicas, backend=backend)
    largest = max(Fraction(w, c) for w, c in zip(row, logcnt[0].tolist(), strict=True))
    every = (
        counts
        for counts in product(range(1, extra + 2), repeat=len(row))
        if sum(counts) == replicas
    )
    best = min(max(Fraction(w, c) for w, c in zip(row, counts, strict=True)) for counts in every)
    assert largest == best


def test_the_limit_is_raised_if_the_slots_leave_no_choice(backend):
    _, _, logcnt = replicate_experts([[100.0, 1.0]], 7, max_replicas=2, backend=backend)
    assert logcnt.tolist() == [[4, 3]]


def test_zero_rows_are_replicated_from_the_lowest_expert_on(backend):
    _, _, logcnt = replicate_experts(torch.zeros(1, 4), 8, max_replicas=3, backend=backend)
    assert logcnt.tolist() == [[3, 3, 1, 1]]


@pytest.mark.parametrize(
    ("arguments", "field", "said"),
    [
        ({"num_replicas": 1}, "num_replicas", "1 slots cannot hold 2 experts"),
        ({"max_replicas": 0}, "max_replicas", "0 is below 1"),
        ({"weight": [[1.0, -1.0]]}, "weight[0, 1]", "-1.0 is negative"),
    ],
)
def test_bad_input_is_named(arguments, field, said):
    with pytest.raises(InvalidArgumentError) as error:
        replicate_experts(**{"weight": [[1.0, 2.0]], "num_replicas": 3, **arguments})
    (violation,) = error.value.violations
    assert (violation.field, said in violation.description) == (field, True)
