"""A lower bound on the imbalance of a load, whatever the placement."""

from __future__ import annotations

import torch
from torch import Tensor

from trimtab_server.domain.balance import fold_sum
from trimtab_server.domain.topology import Topology
from trimtab_server.solver.backends.backend import replica_cap
from trimtab_server.solver.backends.reference.replication import replicate
from trimtab_server.solver.pairing import lightest_peak

ROUNDED_DOWN = 1 - 2.0**-44
"""Room for rounding: loads of GPUs are added up in another order than those of experts."""


def lowest_imbalance(load_LE: Tensor, topology: Topology) -> Tensor:
    """A lower bound on the imbalance of any placement, float64 [L], >= 1.

    The heaviest GPU has at least the mean load, and at least the load of the largest replica,
    which `replicate_experts` makes as small as possible. If groups stay on their nodes,
    equally many on each, it also has at least an even share of the heaviest node. There may
    be no placement that reaches the bound.

    Args:
        load_LE: float64 [L, E], finite, >= 0.
        topology: checked against E.
    """
    experts, gpus = load_LE.shape[1], topology.num_gpus
    mean_L = fold_sum(load_LE) / gpus
    # An expert may have one replica on each GPU of one part.
    limit = replica_cap(topology.num_replicas, experts, gpus // topology.num_parts)
    logcnt_LE = replicate(load_LE, topology.num_replicas, limit).logcnt_XE
    peak_L = (load_LE / logcnt_LE).amax(1)
    if topology.num_parts > 1:
        group_load_LB = fold_sum(load_LE.unflatten(1, (topology.num_groups, -1)))
        node_L = lightest_peak(group_load_LB, topology.num_parts)
        peak_L = torch.maximum(peak_L, node_L / (gpus // topology.num_parts))
    bound_L = peak_L / mean_L * ROUNDED_DOWN
    return torch.where(mean_L > 0, bound_L, 1.0).clamp(min=1.0)
