"""Replicas of each row's experts, and the integers that they weigh."""
# mypy: ignore-errors
# ruff: noqa: D417

import triton
import triton.language as tl

from trimtab_server.solver.backends.cuda.quantise import quantise


@triton.jit(do_not_specialize=["nodes", "experts", "replicas", "most", "group_size"])
def replicate(
    load_ptr,
    group_ptr,
    expert_ptr,
    weight_ptr,
    code_ptr,
    nodes,
    experts,
    replicas,
    most,
    group_size,
    E2: tl.constexpr,
    R2: tl.constexpr,
    HIERARCHICAL: tl.constexpr,
):
    """One program a row: `replicate_experts`, then the replicas' shares as integers.

    Args:
        load_ptr: float64 [L, nodes * experts].
        group_ptr: int32 [L, groups], the groups of the first node, then of the second
            (hierarchical only); a row is a node of a layer.
        expert_ptr: int32 [X, R], out: each replica's expert, numbered within the row.
        weight_ptr: int32 [X, R], out.
        code_ptr: int32 [X, R], out: the experts with replicas numbered from 0; -1 for
            others, which no rule can concern.
        nodes: rows of a layer.
        experts: E of a row.
        replicas: R of a row.
        most: replicas of one expert.
        group_size: experts of a group.
    """
    row = tl.program_id(0).to(tl.int64)
    expert = tl.arange(0, E2)
    inside = expert < experts
    source = expert
    if HIERARCHICAL:
        groups = experts // group_size
        place = row * groups + expert // group_size
        group = tl.load(group_ptr + place, mask=inside, other=0)
        source = group * group_size + expert % group_size
    load_ptr += (row // nodes) * nodes * experts
    expert_ptr += row * replicas
    weight_ptr += row * replicas
    code_ptr += row * replicas

    load = tl.load(load_ptr + source, mask=inside, other=0.0)
    tl.store(expert_ptr + expert, expert, mask=inside)
    count = tl.full([E2], 1, tl.int32)
    share = load
    for slot in range(experts, replicas):
        candidate = tl.where(inside & (count < most), share, -1.0)
        top = tl.max(candidate, axis=0)
        chosen = tl.min(tl.where(candidate == top, expert, E2), axis=0)
        tl.store(expert_ptr + slot, chosen)
        count += (expert == chosen).to(tl.int32)
        share = load / count.to(tl.float64)

    weight = quantise(share, tl.max(tl.where(inside, share, 0.0), axis=0), replicas)
    many = (inside & (count > 1)).to(tl.int32)
    code = tl.where(many == 1, tl.cumsum(many, axis=0) - 1, -1)
    tl.store(weight_ptr + expert, weight, mask=inside)
    tl.store(code_ptr + expert, code, mask=inside)
    # The further replicas copy their expert's first.
    tl.debug_barrier()
    slot = tl.arange(0, R2)
    further = (slot >= experts) & (slot < replicas)
    first = tl.load(expert_ptr + slot, mask=further, other=0)
    tl.store(weight_ptr + slot, tl.load(weight_ptr + first, mask=further, other=0), mask=further)
    tl.store(code_ptr + slot, tl.load(code_ptr + first, mask=further, other=0), mask=further)


@triton.jit(do_not_specialize=["items"])
def prepare(
    amount_ptr, group_ptr, weight_ptr, code_ptr, items, N2: tl.constexpr, GROUPS: tl.constexpr
):
    """One program a row of items to pack: weights as integers, and which groups matter.

    Args:
        amount_ptr: float64 [X, n].
        group_ptr: int64 [X, n] in [0, n).
        weight_ptr: int32 [X, n], out.
        code_ptr: int32 [X, n], out: the group; -1 for an item alone in its group.
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
