"""`improve` in batched torch: each step evaluates every candidate of every layer."""

from __future__ import annotations

import heapq
from typing import NamedTuple

import torch
from torch import Tensor

from trimtab_server.domain.balance import gpu_loads
from trimtab_server.domain.moves import presence
from trimtab_server.domain.topology import Topology
from trimtab_server.solver.backends.backend import Solved
from trimtab_server.solver.backends.reference.align import keep_slots
from trimtab_server.solver.backends.reference.candidates import Candidates, Layers, swaps, transfers
from trimtab_server.solver.backends.reference.memory import split_rows
from trimtab_server.solver.backends.reference.quantise import quantise
from trimtab_server.solver.budget import Budget

_FREE = 2.0**-40
"""The cost of a step without net moves when gains per move are compared."""


class _Step(NamedTuple):
    """A step of each layer, [L]: expert `to` replaces the one in `slot`.

    In a swap, the replaced expert goes to `other_slot`, which is -1 in a transfer.
    `score` is the gain per net move, `cost` the net moves.
    """

    slot: Tensor
    other_slot: Tensor
    to: Tensor
    cost: Tensor
    score: Tensor


class _Taken(NamedTuple):
    """A step that one layer has taken: its score and cost, and the slots after it."""

    score: float
    cost: float
    is_swap: bool
    slots_R: Tensor


def improve(
    start_LR: Tensor, load_LE: Tensor, topology: Topology, budget: Budget, top_k: int
) -> Solved:
    """Improve all layers at once, one step of each at a time.

    Args:
        start_LR: int64 [L, R], a placement that holds every expert.
        load_LE: float64 [L, E], finite, >= 0.
        topology: checked against E.
        budget: limits of the steps' costs.
        top_k: how many heaviest GPUs have their experts tried, and how many lightest swap.
    """
    swapped = min(top_k, topology.num_gpus) * topology.slots_per_gpu
    candidates = swapped**2 + start_LR.shape[1] * load_LE.shape[1]
    min_gain_L = torch.tensor(budget.min_gains(len(load_LE)), dtype=torch.float64)
    batches = (start_LR, load_LE, min_gain_L.to(load_LE.device))
    parts = zip(*(split_rows(batch, candidates) for batch in batches), strict=True)
    paths = [
        path
        for start, load, min_gain in parts
        for path in _paths(start, quantise(load), min_gain, topology, budget, top_k)
    ]
    kept = _spend(paths, budget.max_moves)
    new_LR = _carried_out(kept, start_LR, topology.num_gpus)
    # Rounding to integers can hide a last-digit rise of the heaviest GPU.
    while (rises_L := _rises(start_LR, new_LR, load_LE, topology.num_gpus)).any():
        kept = [
            path[:-1] if rises else path for path, rises in zip(kept, rises_L.tolist(), strict=True)
        ]
        new_LR = _carried_out(kept, start_LR, topology.num_gpus)
    return Solved(
        new_LR,
        iterations=sum(len(path) for path in paths),
        swaps=sum(step.is_swap for path in kept for step in path),
    )


def _paths(
    start_LR: Tensor,
    weight_LE: Tensor,
    min_gain_L: Tensor,
    topology: Topology,
    budget: Budget,
    top_k: int,
) -> list[list[_Taken]]:
    """The best steps of each layer, within its own budget, until none gains."""
    allowed_LEG, cost_LEG = _rules(start_LR, weight_LE.shape[1], topology, budget)
    limits = [float(x) for x in (budget.max_moves_per_layer, budget.max_moves) if x is not None]
    left_L = torch.full((len(start_LR),), min(limits, default=float("inf")), dtype=torch.float64)
    left_L = left_L.to(start_LR.device)
    slots_LR = start_LR.clone()
    paths: list[list[_Taken]] = [[] for _ in start_LR]
    active_L = torch.arange(len(start_LR), device=start_LR.device)
    while len(active_L):
        layers = Layers.of(slots_LR[active_L], weight_LE[active_L], topology.num_gpus)
        rules = allowed_LEG[active_L], cost_LEG[active_L]
        bounds = left_L[active_L], min_gain_L[active_L]
        swap = _best(layers, swaps(layers, *rules, top_k), *bounds)
        transfer = _best(layers, transfers(layers, *rules, top_k), *bounds)
        swap_first_L = swap.score >= transfer.score
        step = _Step(
            *(torch.where(swap_first_L, *columns) for columns in zip(swap, transfer, strict=True))
        )
        found_L = step.score > 0
        active_L = active_L[found_L]
        step = _Step(*(column[found_L] for column in step))
        _apply(slots_LR, active_L, step)
        left_L[active_L] -= step.cost
        columns = (step.score, step.cost, step.other_slot >= 0)
        for layer, score, cost, is_swap in zip(
            active_L.tolist(), *(column.tolist() for column in columns), strict=True
        ):
            paths[layer].append(_Taken(score, cost, is_swap, slots_LR[layer].clone()))
    return paths


def _rules(
    start_LR: Tensor, experts: int, topology: Topology, budget: Budget
) -> tuple[Tensor, Tensor]:
    """Where an expert may lie (bool), and the cost of its arrival there (float64), [L, E, G]."""
    held_LGE = presence(start_LR, experts, topology.num_gpus)
    held_LNgE = held_LGE.unflatten(1, (topology.num_nodes, -1))
    near_LNgE = held_LNgE.any(2, keepdim=True).expand_as(held_LNgE)
    near_LEG = near_LNgE.flatten(1, 2).mT
    cost_LEG = torch.full_like(near_LEG, budget.counted_cross_node_cost, dtype=torch.float64)
    cost_LEG.masked_fill_(near_LEG, 1.0).masked_fill_(held_LGE.mT, 0.0)
    if topology.num_groups == 1:
        return torch.ones_like(near_LEG), cost_LEG
    near_LBeG = near_LEG.unflatten(1, (topology.num_groups, -1))
    allowed_LBeG = near_LBeG.any(2, keepdim=True).expand_as(near_LBeG)
    return allowed_LBeG.flatten(1, 2), cost_LEG


def _best(layers: Layers, candidates: Candidates, left_L: Tensor, min_gain_L: Tensor) -> _Step:
    """The step of each layer with the largest gain per net move; its score is 0 without one."""
    slot_LA, other_LB, gain_LAB, cost_LAB = candidates
    # Computed from the exact sum, since a device's mean() may multiply by a rounded 1 / G.
    mean_L = layers.load_LG.sum(1).double() / layers.load_LG.shape[1]
    mean_L11 = mean_L.clamp(min=1.0).view(-1, 1, 1)
    share_LAB = gain_LAB.double() / mean_L11.square()
    allowed_LAB = (gain_LAB > 0) & (cost_LAB <= left_L.view(-1, 1, 1))
    allowed_LAB &= share_LAB >= min_gain_L.view(-1, 1, 1) * cost_LAB
    score_LAB = torch.where(allowed_LAB, share_LAB / cost_LAB.clamp(min=_FREE), 0.0)
    score_L, best_L = score_LAB.flatten(1).max(1)
    a_L1 = (best_L // gain_LAB.shape[2]).unsqueeze(1)
    b_L1 = (best_L % gain_LAB.shape[2]).unsqueeze(1)
    other_L1 = torch.full_like(b_L1, -1) if other_LB is None else other_LB.gather(1, b_L1)
    to_L1 = b_L1 if other_LB is None else layers.phy2log_LR.gather(1, other_L1)
    cost_L1 = cost_LAB.flatten(1).gather(1, best_L.unsqueeze(1))
    columns = (slot_LA.gather(1, a_L1), other_L1, to_L1, cost_L1, score_L.unsqueeze(1))
    return _Step(*(column.squeeze(1) for column in columns))


def _apply(slots_LR: Tensor, layer_A: Tensor, step: _Step) -> None:
    given_A = slots_LR[layer_A, step.slot]
    slots_LR[layer_A, step.slot] = step.to
    swap_A = step.other_slot >= 0
    slots_LR[layer_A[swap_A], step.other_slot[swap_A]] = given_A[swap_A]


def _carried_out(kept: list[list[_Taken]], start_LR: Tensor, num_gpus: int) -> Tensor:
    """The placement after the kept steps of each layer, [L, R]."""
    last = [path[-1].slots_R if path else start for path, start in zip(kept, start_LR, strict=True)]
    return keep_slots(torch.stack(last), start_LR, num_gpus)


def _rises(start_LR: Tensor, new_LR: Tensor, load_LE: Tensor, num_gpus: int) -> Tensor:
    """Whether the heaviest GPU of each layer gets heavier, bool [L]."""
    before_L, after_L = (
        gpu_loads(plan_LR, load_LE, num_gpus).amax(1) for plan_LR in (start_LR, new_LR)
    )
    return after_L > before_L


def _spend(paths: list[list[_Taken]], max_moves: float | None) -> list[list[_Taken]]:
    """The steps that each layer keeps: repeatedly the best next step of any layer that fits."""
    kept: list[list[_Taken]] = [[] for _ in paths]
    left = float("inf") if max_moves is None else max_moves
    queue = [(-path[0].score, layer) for layer, path in enumerate(paths) if path]
    heapq.heapify(queue)
    while queue:
        _, layer = heapq.heappop(queue)
        path, step = paths[layer], paths[layer][len(kept[layer])]
        if step.cost > left:
            continue
        left -= step.cost
        kept[layer].append(step)
        if len(kept[layer]) < len(path):
            heapq.heappush(queue, (-path[len(kept[layer])].score, layer))
    return kept
