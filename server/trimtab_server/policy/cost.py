"""How long the weights of a plan are under way."""

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
    """Seconds that the busiest GPU sends or receives, each move from its nearest source.

    A GPU sends and receives at once, and over both kinds of link at once: what counts is the
    one of these four that takes longest. Moves of all layers count together, since they come
    in one switch, or in one after another.

    Args:
        moves: from what is in force.
        topology: GPUs and nodes.
        bytes_per_expert: size of one expert's weights in one layer.
        node_bandwidth: bytes a second of a GPU, inside a node.
        cross_node_bandwidth: the same between nodes.
    """
    if not len(moves):
        return 0.0
    to_M = moves.layer_slot_expert[:, 1].numpy() // (topology.num_replicas // topology.num_gpus)
    sources_MX = moves.source_gpus.numpy()
    per_node = topology.num_gpus // topology.num_nodes
    near_MX = (sources_MX >= 0) & (sources_MX // per_node == (to_M // per_node)[:, None])
    # The first of the same node, or else the first.
    from_M = sources_MX[np.arange(len(to_M)), near_MX.argmax(1)]
    crosses_M = ~near_MX.any(1)
    slowest = 0.0
    for which_M, bandwidth in ((~crosses_M, node_bandwidth), (crosses_M, cross_node_bandwidth)):
        for gpus_M in (to_M, from_M):
            most = int(np.bincount(gpus_M[which_M], minlength=1).max())
            slowest = max(slowest, most * bytes_per_expert / bandwidth)
    return slowest
