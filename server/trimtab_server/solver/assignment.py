"""Assigns each GPU of a new placement the name of a GPU of the placement in force."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.optimize import linear_sum_assignment


def assign(overlap_GG: npt.NDArray[np.float64], num_nodes: int) -> npt.NDArray[np.int64]:
    """The name of each GPU of the new placement, int64 [G], for which the overlaps sum to most.

    SciPy solves this assignment problem exactly (the algorithm of Crouse, 2016). With several
    nodes, the GPUs inside each pair of nodes are assigned first, then the nodes.

    Args:
        overlap_GG: float64, the experts that both the new GPU (row) and the current one hold.
        num_nodes: N; it divides G.
    """
    if num_nodes == 1:
        return np.asarray(linear_sum_assignment(overlap_GG, maximize=True)[1])
    per_node = len(overlap_GG) // num_nodes
    blocks_NNgg = overlap_GG.reshape(num_nodes, per_node, num_nodes, per_node).swapaxes(1, 2)
    inner = [[assign(block, 1) for block in row] for row in blocks_NNgg]
    best_NN = [
        [block[np.arange(per_node), names].sum() for block, names in zip(*rows, strict=True)]
        for rows in zip(blocks_NNgg, inner, strict=True)
    ]
    node_N = assign(np.array(best_NN), 1)
    return np.concatenate([node * per_node + inner[i][node] for i, node in enumerate(node_N)])
