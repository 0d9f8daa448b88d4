"""The time that the transfer of a plan's weights takes."""

from __future__ import annotations

import numpy as np

from trimtab_server.domain.moves import Moves
from trimtab_server.domain.topology import Topology


def busiest_seconds(
    moves: Moves,
    topology: Topology,
    bytes_per_expert: int,
    node_bandwidth: float,
    cross_node_bandwidth: float,
) -> float:
    """Seconds for which the busiest GPU sends or receives, if each move has its nearest source.

    A GPU sends and receives at the same time, inside its node and between nodes: the slowest of
    these four transfers counts. Moves of all layers are added up, since they are made in one
    switch, or in consecutive ones.

    Args:
        moves: from the placement in force.
        topology: GPUs and nodes.
        bytes_per_expert: size of one expert's weights in one layer.
        node_bandwidth: bytes per second of a GPU inside its node.
        cross_node_bandwidth: bytes per second of a GPU from or to other nodes.
    """
    if not len(moves):
        return 0.0
    to_M = moves.layer_slot_expert[:, 1].numpy() // (topology.num_replicas // topology.num_gpus)
    sources_MX = moves.source_gpus.numpy()
    per_node = topology.num_gpus // topology.num_nodes
    near_MX = (sources_MX >= 0) & (sources_MX // per_node == (to_M // per_node)[:, None])
    # The first source on the same node, or else the first source.
    from_M = sources_MX[np.arange(len(to_M)), near_MX.argmax(1)]
    crosses_M = ~near_MX.any(1)
    slowest = 0.0
    for which_M, bandwidth in ((~crosses_M, node_bandwidth), (crosses_M, cross_node_bandwidth)):
        for gpus_M in (to_M, from_M):
            busiest = int(np.bincount(gpus_M[which_M], minlength=1).max())
            slowest = max(slowest, busiest * bytes_per_expert / bandwidth)
    return slowest
