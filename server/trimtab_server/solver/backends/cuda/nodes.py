"""Assigns groups to nodes: the loads of groups, and the best of all pairings."""
# mypy: ignore-errors
# ruff: noqa: D417

import triton
import triton.language as tl

from trimtab_server.solver.backends.cuda.quantise import quantise

_MAX = tl.constexpr((1 << 63) - 1)


@triton.jit(do_not_specialize=["groups", "group_size"])
def group_loads(load_ptr, total_ptr, groups, group_size, B2: tl.constexpr, F2: tl.constexpr):
    """Sum up the integer loads of each group; one layer for each program.

    Args:
        load_ptr: float64 [L, E].
        total_ptr: float64 [L, groups], written: integers below 2**30.
        groups: groups of a layer.
        group_size: experts of a group.
    """
    layer = tl.program_id(0).to(tl.int64)
    group, member = tl.arange(0, B2)[:, None], tl.arange(0, F2)[None, :]
    inside = (group < groups) & (member < group_size)
    load_ptr += layer * groups * group_size
    load = tl.load(load_ptr + group * group_size + member, mask=inside, other=0.0)
    largest = tl.max(load)
    total = tl.sum(quantise(load, largest, groups * group_size), axis=1)
    one = tl.arange(0, B2)
    tl.store(total_ptr + layer * groups + one, total.to(tl.float64), mask=one < groups)


@triton.jit(do_not_specialize=["pairings", "groups", "nodes"])
def pair(
    total_ptr, pairing_ptr, group_ptr, pairings, groups, nodes, Q2: tl.constexpr, B2: tl.constexpr
):
    """Choose the pairing with the lowest peak, then L2, then index; one layer for each program.

    Args:
        total_ptr: float64 [L, groups], integers.
        pairing_ptr: int32 [Q, groups], see `pairings`.
        group_ptr: int32 [L, groups], written: the groups of the first node, then of the second.
        pairings: Q.
        groups: groups of a layer.
        nodes: N.
    """
    layer = tl.program_id(0).to(tl.int64)
    total_ptr += layer * groups
    pairing = tl.arange(0, Q2)
    inside = pairing < pairings
    per_node = groups // nodes
    peak, squares = tl.zeros([Q2], tl.int64), tl.zeros([Q2], tl.int64)
    for node in range(nodes):
        load = tl.zeros([Q2], tl.int64)
        for place in range(per_node):
            at = pairing * groups + node * per_node + place
            group = tl.load(pairing_ptr + at, mask=inside, other=0)
            load += tl.load(total_ptr + group, mask=inside, other=0.0).to(tl.int64)
        peak = tl.maximum(peak, load)
        squares += load * load
    lowest = inside & (peak == tl.min(tl.where(inside, peak, _MAX), axis=0))
    least = tl.min(tl.where(lowest, squares, _MAX), axis=0)
    best = tl.min(tl.where(lowest & (squares == least), pairing, Q2), axis=0)
    place = tl.arange(0, B2)
    group = tl.load(pairing_ptr + best * groups + place, mask=place < groups, other=0)
    tl.store(group_ptr + layer * groups + place, group, mask=place < groups)
