"""The backend for the CPU."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from trimtab_server.domain.moves import Moves
from trimtab_server.domain.topology import Topology
from trimtab_server.solver.backends.backend import Backend, Packing, Replicas, Solved, replica_cap
from trimtab_server.solver.backends.cpu.align import align
from trimtab_server.solver.backends.cpu.balance import balance_ns, balance_rows
from trimtab_server.solver.backends.cpu.improve import improve_layers
from trimtab_server.solver.backends.cpu.layer import Rules
from trimtab_server.solver.backends.cpu.maps import slot_maps
from trimtab_server.solver.backends.cpu.moves import moves_of_rows
from trimtab_server.solver.backends.cpu.nodes import bound_rows, pairing_ns
from trimtab_server.solver.backends.cpu.packing import MAX_ITEMS, pack_amounts
from trimtab_server.solver.backends.cpu.plan import plan
from trimtab_server.solver.backends.cpu.rows import places, replicate_ns, replicate_rows
from trimtab_server.solver.backends.cpu.threads import for_parts
from trimtab_server.solver.backends.reference.backend import Reference
from trimtab_server.solver.budget import Budget
from trimtab_server.solver.pairing import pairings
from trimtab_server.solver.settings import Settings


class Cpu(Backend):
    """Compiled loops on several threads: at most as many as torch would use, and as cores are free.

    See `Backend`. The loops support a million items in a row; the reference packs larger rows.
    """

    name = "cpu"

    def replicate(self, load_XE: Tensor, num_replicas: int, limit: int) -> Replicas:
        """See `Backend`."""
        rows, experts = load_XE.shape
        expert_XR, rank_XR = np.empty((2, rows, num_replicas), np.int64)
        logcnt_XE = np.empty((rows, experts), np.int64)
        load = _array(load_XE)
        for_parts(
            rows,
            lambda first, end: replicate_rows(
                load, limit, first, end, expert_XR, rank_XR, logcnt_XE
            ),
            nanoseconds=replicate_ns(experts, num_replicas),
        )
        return Replicas(*(_tensor(x, load_XE) for x in (expert_XR, rank_XR, logcnt_XE)))

    def pack(
        self, weight_XI: Tensor, num_packs: int, group_XI: Tensor | None, settings: Settings
    ) -> Packing:
        """See `Backend`."""
        if weight_XI.shape[1] > MAX_ITEMS:
            return Reference().pack(weight_XI, num_packs, group_XI, settings)
        group = None if group_XI is None else _array(group_XI).astype(np.int32)
        packed = pack_amounts(_array(weight_XI), num_packs, group, settings)
        pack_index, rank = np.empty((2, *weight_XI.shape), np.int64)
        places(packed.item_XR, num_packs, pack_index, rank)
        answers = (_tensor(pack_index, weight_XI), _tensor(rank, weight_XI))
        return Packing(*answers, packed.steps, packed.swaps)

    def plan(self, load_LE: Tensor, topology: Topology, settings: Settings) -> Solved:
        """See `Backend`."""
        if topology.num_replicas > MAX_ITEMS:
            return Reference().plan(load_LE, topology, settings)
        phy2log, steps, swaps = plan(_array(load_LE), topology, settings)
        return Solved(_tensor(phy2log, load_LE), steps, swaps)

    def improve(
        self, start_LR: Tensor, load_LE: Tensor, topology: Topology, budget: Budget, top_k: int
    ) -> Solved:
        """See `Backend`."""
        if topology.num_gpus > MAX_ITEMS:
            return Reference().improve(start_LR, load_LE, topology, budget, top_k)
        nodes, groups = topology.num_nodes, topology.num_groups
        rules = Rules(top_k, nodes, groups, budget.counted_cross_node_cost)
        min_gain = np.array(budget.min_gains(len(load_LE)))
        total = _or_infinite(budget.max_moves)
        each = min(_or_infinite(budget.max_moves_per_layer), total)
        phy2log, steps, swaps = improve_layers(
            _array(start_LR), _array(load_LE), topology.num_gpus, rules, min_gain, each, total
        )
        return Solved(_tensor(phy2log, load_LE), steps, swaps)

    def bound(self, load_LE: Tensor, topology: Topology) -> Tensor:
        """See `Backend`."""
        groups, nodes = topology.num_groups, topology.num_parts
        pairing_QB = pairings(groups, nodes)
        if pairing_QB is None:
            return Reference().bound(load_LE, topology)
        load, pairing, bound = _array(load_LE), _array(pairing_QB), np.empty(len(load_LE))
        replicas, gpus = topology.num_replicas, topology.num_gpus
        limit = replica_cap(replicas, load.shape[1], gpus // nodes)
        for_parts(
            len(load),
            lambda first, end: bound_rows(
                load, pairing, nodes, gpus, replicas, limit, first, end, bound
            ),
            nanoseconds=replicate_ns(load.shape[1], replicas) + pairing_ns(pairing),
        )
        return _tensor(bound, load_LE)

    def balance(self, phy2log_LR: Tensor, load_LE: Tensor, num_gpus: int) -> tuple[Tensor, Tensor]:
        """See `Backend`."""
        phy2log, load = _array(phy2log_LR), _array(load_LE)
        gpu_load, imbalance = np.empty((len(load), num_gpus)), np.empty(len(load))
        for_parts(
            len(load),
            lambda first, end: balance_rows(phy2log, load, first, end, gpu_load, imbalance),
            nanoseconds=balance_ns(load.shape[1], phy2log.shape[1]),
        )
        return _tensor(gpu_load, load_LE), _tensor(imbalance, load_LE)

    def moves(self, current_LR: Tensor, new_LR: Tensor, num_experts: int, num_gpus: int) -> Moves:
        """See `Backend`."""
        moves, sources = moves_of_rows(_array(current_LR), _array(new_LR), num_experts, num_gpus)
        return Moves(_tensor(moves, new_LR), _tensor(sources, new_LR))

    def align(
        self, new_LR: Tensor, current_LR: Tensor, num_experts: int, num_gpus: int, num_nodes: int
    ) -> Tensor:
        """See `Backend`."""
        new, current = _array(new_LR), _array(current_LR)
        return _tensor(align(new, current, num_experts, num_gpus, num_nodes), new_LR)

    def slot_maps(self, phy2log_LR: Tensor, num_experts: int) -> tuple[Tensor, Tensor]:
        """See `Backend`."""
        log2phy, logcnt = slot_maps(_array(phy2log_LR), num_experts)
        return _tensor(log2phy, phy2log_LR), _tensor(logcnt, phy2log_LR)


def _array(tensor: Tensor) -> npt.NDArray[Any]:
    """The tensor as a contiguous array, which the compiled loops require."""
    return np.ascontiguousarray(tensor.cpu().numpy())


def _tensor(array: npt.NDArray[Any], like: Tensor) -> Tensor:
    return torch.from_numpy(array).to(like.device)


def _or_infinite(limit: float | None) -> float:
    return float("inf") if limit is None else float(limit)
