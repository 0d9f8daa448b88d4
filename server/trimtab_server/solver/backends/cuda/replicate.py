"""Replicates the experts of each row, and converts loads to the integers that are packed."""
# mypy: ignore-errors
# ruff: noqa: D417

import triton
import triton.language as tl

from trimtab_server.solver.backends.cuda.quantise import quantise


@triton.jit(do_not_specialize=["nodes", "experts", "replicas", "max_count", "group_size"])
def replicate(
    load_ptr,
    group_ptr,
    expert_ptr,
    weight_ptr,
    code_ptr,
    nodes,
    experts,
    replicas,
    max_count,
    group_size,
    E2: tl.constexpr,
    R2: tl.constexpr,
    HIERARCHICAL: tl.constexpr,
):
    """Run `replicate_experts` on one row for each program; weights are shares as integers.

    Args:
        load_ptr: float64 [L, nodes * experts].
        group_ptr: int32 [L, groups], see `number_in_layer`; only read if HIERARCHICAL.
        expert_ptr: int32 [X, R], written: each replica's expert, numbered within the row.
        weight_ptr: int32 [X, R], written.
        code_ptr: int32 [X, R], written: experts with several replicas, numbered from 0; -1
            for the others, which no rule concerns.
        nodes: rows of a layer.
        experts: E of a row.
        replicas: R of a row.
        max_count: replicas that one expert may have.
        group_size: experts of a group.
    """
    row = tl.program_id(0).to(tl.int64)
    expert = tl.arange(0, E2)
    inside = expert < experts
    source = expert
    if HIERARCHICAL:
        source = number_in_layer(group_ptr, row, expert, inside, experts, group_size)
    load_ptr += (row // nodes) * nodes * experts
    expert_ptr += row * replicas
    weight_ptr += row * replicas
    code_ptr += row * replicas

    load = tl.load(load_ptr + source, mask=inside, other=0.0)
    tl.store(expert_ptr + expert, expert, mask=inside)
    count, share = _give_slots(load, expert_ptr, experts, replicas, max_count, E2)
    weight = quantise(share, tl.max(tl.where(inside, share, 0.0), axis=0), replicas)
    many = (inside & (count > 1)).to(tl.int32)
    code = tl.where(many == 1, tl.cumsum(many, axis=0) - 1, -1)
    tl.store(weight_ptr + expert, weight, mask=inside)
    tl.store(code_ptr + expert, code, mask=inside)
    # Each further replica copies the values of its expert's first one.
    tl.debug_barrier()
    slot = tl.arange(0, R2)
    further = (slot >= experts) & (slot < replicas)
    first = tl.load(expert_ptr + slot, mask=further, other=0)
    tl.store(weight_ptr + slot, tl.load(weight_ptr + first, mask=further, other=0), mask=further)
    tl.store(code_ptr + slot, tl.load(code_ptr + first, mask=further, other=0), mask=further)


@triton.jit
def _give_slots(load, expert_ptr, experts, replicas, max_count, E2: tl.constexpr):
    """Give each further slot to an expert; how many each has then, and its load per replica."""
    expert = tl.arange(0, E2)
    inside = expert < experts
    count = tl.full([E2], 1, tl.int32)
    share = load
    for slot in range(experts, replicas):
        candidate = tl.where(inside & (count < max_count), share, -1.0)
        top = tl.max(candidate, axis=0)
        chosen = tl.min(tl.where(candidate == top, expert, E2), axis=0)
        tl.store(expert_ptr + slot, chosen)
        count += (expert == chosen).to(tl.int32)
        share = load / count.to(tl.float64)
    return count, share


@triton.jit
def number_in_layer(group_ptr, row, expert, inside, experts, group_size):
    """The numbers within the layer of experts that are numbered within a node.

    Args:
        group_ptr: int32 [L, groups], the groups of the first node of a layer, then of the second.
        row: a node of a layer; its experts are those of its groups, in that order.
        expert: int32, numbered within the node.
        inside: which of them there are.
        experts: E of the node.
        group_size: experts of a group.
    """
    place = row * (experts // group_size) + expert // group_size
    group = tl.load(group_ptr + place, mask=inside, other=0)
    return group * group_size + expert % group_size


@triton.jit(do_not_specialize=["items"])
def prepare(
    amount_ptr, group_ptr, weight_ptr, code_ptr, items, N2: tl.constexpr, GROUPS: tl.constexpr
):
    """Prepare one row of items for each program: weights as integers, and groups that matter.

    Args:
        amount_ptr: float64 [X, n].
        group_ptr: int64 [X, n] in [0, n).
        weight_ptr: int32 [X, n], written.
        code_ptr: int32 [X, n], written: the group, or -1 for an item alone in its group.
        items: n.
    """
    row = tl.program_id(0).to(tl.int64)
    item = tl.arange(0, N2)
    inside = item < items
    amount = tl.load(amount_ptr + row * items + item, mask=inside, other=0.0)
    weight = quantise(amount, tl.max(amount, axis=0), items)
    tl.store(weight_ptr + row * items + item, weight, mask=inside)
    if GROUPS:
        group_ptr += row * items
        group = tl.load(group_ptr + item, mask=inside, other=-1).to(tl.int32)
        count = tl.zeros([N2], tl.int32)
        for other in range(items):
            count += (group == tl.load(group_ptr + other).to(tl.int32)).to(tl.int32)
        code = tl.where(count > 1, group, -1)
        tl.store(code_ptr + row * items + item, code, mask=inside)
