"""Assigns router groups to nodes by trying all pairings and keeping the lowest peak."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import cache
from itertools import combinations

import torch
from torch import Tensor

from trimtab_server.domain.balance import fold_sum

MAX_PAIRINGS = 1000
"""If there are more pairings, groups are packed instead: 8 groups on 4 nodes have 105 pairings,
16 groups on 4 nodes have 2.6 million."""


@cache
def pairings(num_groups: int, num_nodes: int) -> Tensor | None:
    """All ways to deal groups to nodes, int64 [Q, groups]; None if they are too many.

    A row lists the groups of the first node, then of the second, and so on. Nodes
    are alike, so each way is listed once: groups ascending, nodes by their first group.
    """
    size = num_groups // num_nodes
    if _count(num_groups, size) > MAX_PAIRINGS:
        return None
    return torch.tensor(list(_deals(list(range(num_groups)), size)))


def best_pairing(group_load_LB: Tensor, pairing_QB: Tensor, num_nodes: int) -> Tensor:
    """The best pairing of each layer, int64 [L, groups].

    Its heaviest node is lightest, which limits every plan inside the nodes; among equal
    ones, its sum of squares is lowest; then it comes first.

    Args:
        group_load_LB: int64 [L, groups], with the sum of each row below 2**30.
        pairing_QB: see `pairings`.
        num_nodes: N.
    """
    load_LQN = group_load_LB[:, pairing_QB].unflatten(2, (num_nodes, -1)).sum(-1)
    peak_LQ = load_LQN.amax(2)
    squares_LQ = load_LQN.square().sum(2)
    lowest_LQ = peak_LQ == peak_LQ.amin(1, keepdim=True)
    best_L = torch.where(lowest_LQ, squares_LQ, torch.iinfo(torch.int64).max).argmin(1)
    return pairing_QB[best_L]


def lightest_peak(group_load_LB: Tensor, num_nodes: int) -> Tensor:
    """The lowest possible load of the heaviest node, float64 [L].

    If there are too many pairings to try, a lower bound of it: the load of the heaviest
    group together with the lightest others.

    Args:
        group_load_LB: float64 [L, groups], finite, >= 0.
        num_nodes: N.
    """
    groups = group_load_LB.shape[1]
    pairing_QB = pairings(groups, num_nodes)
    if pairing_QB is None:
        ascending_LB = group_load_LB.sort(1).values
        lightest_LB = ascending_LB[:, : groups // num_nodes - 1]
        return ascending_LB[:, -1] + fold_sum(lightest_LB)
    dealt_LQB = group_load_LB[:, pairing_QB.to(group_load_LB.device)]
    return fold_sum(dealt_LQB.unflatten(2, (num_nodes, -1))).amax(2).amin(1)


def _deals(groups: list[int], size: int) -> Iterator[list[int]]:
    """All deals of these groups to nodes of `size` groups; the first node gets the first group."""
    if not groups:
        yield []
        return
    first, *rest = groups
    for chosen in combinations(rest, size - 1):
        others = [group for group in rest if group not in chosen]
        for deal in _deals(others, size):
            yield [first, *chosen, *deal]


def _count(num_groups: int, size: int) -> int:
    """How many deals there are, or some number above MAX_PAIRINGS."""
    ways = 1
    for left in range(num_groups, 0, -size):
        ways *= math.comb(left - 1, size - 1)
        if ways > MAX_PAIRINGS:
            break
    return ways
