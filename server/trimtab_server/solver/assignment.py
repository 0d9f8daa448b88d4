"""Which GPU of the placement in force each GPU of a new one becomes: an assignment problem."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.optimize import linear_sum_assignment


def assign(overlap_GG: npt.NDArray[np.float64], num_nodes: int) -> npt.NDArray[np.int64]:
    """The name of each GPU of the new placement, int64 [G]: the sum of their overlaps is largest.

    SciPy solves it exactly (the algorithm of Crouse, 2016). With nodes, GPUs inside of
    each pair of nodes are assigned first, then nodes.

    Args:
        overlap_GG: float64, experts that new GPU (row) and current GPU (column) both hold.
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
