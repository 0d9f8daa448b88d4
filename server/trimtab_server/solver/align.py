"""Renames the GPUs and slots of a full plan so that the fewest experts move."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from trimtab_server.domain.arrays import as_indices, require_shape
from trimtab_server.domain.errors import require
from trimtab_server.domain.topology import Topology
from trimtab_server.solver.backends.backend import Backend
from trimtab_server.solver.backends.select import BackendName, backend_for

Int64s = npt.NDArray[np.int64]


def align(
    new: Any,
    current: Any,
    num_gpus: int,
    *,
    num_nodes: int = 1,
    backend: BackendName | Backend = "auto",
) -> Tensor:
    """The placement `new` with its GPUs renamed so that it differs least from `current`.

    GPUs are alike, so every renaming is as balanced. The renaming with the fewest
    moves is an assignment problem (see `assign`). Experts that stay on a GPU
    keep their slot there.

    Args:
        new: int [L, R], the placement to reach.
        current: int [L, R], the placement in force.
        num_gpus: G; it divides R.
        num_nodes: N; it divides G. With more than 1, GPUs that share a node in
            `new` share one in the answer: nodes are assigned, then the GPUs inside.
            Pass 1 if an expert may lie on any node.
        backend: see `backend_for`.

    Returns:
        int64 [L, R], on the device of `new`.

    Raises:
        InvalidArgumentError: an argument breaks a rule above.
    """
    new_LR, current_LR = as_indices(new, "new"), as_indices(current, "current")
    both_2LR = _stacked(new_LR, current_LR)
    topology = Topology(new_LR.shape[1], num_gpus, num_nodes)
    names, known_2LR = _numbered(both_2LR)
    renamed_LR, kept_LR = torch.from_numpy(known_2LR)
    aligned_LR = backend_for(backend, new_LR.device).align(
        renamed_LR, kept_LR, len(names), topology.num_gpus, topology.num_nodes
    )
    return torch.from_numpy(names[aligned_LR.numpy()]).to(new_LR.device)


def _numbered(both_2LR: Int64s) -> tuple[Int64s, Int64s]:
    """The distinct experts, ascending, and the placements as indices into them.

    So memory depends on how many experts there are, not on their numbers. Numbers that are
    about as small as the number of slots are kept: replacing them would take longer than `align`.
    """
    highest = int(both_2LR.max())
    if highest < 4 * both_2LR.shape[2]:
        return np.arange(highest + 1), both_2LR
    names, known = np.unique(both_2LR, return_inverse=True)
    return names, known.reshape(both_2LR.shape)


def _stacked(new_LR: Tensor, current_LR: Tensor) -> Int64s:
    """Both placements on the host, checked, int64 [2, L, R]."""
    require_shape(current_LR, "current", new_LR, "new")
    both_2LR = np.stack([new_LR.cpu().numpy(), current_LR.cpu().numpy()])
    for name, value_LR in zip(("new", "current"), both_2LR, strict=True):
        lowest = int(value_LR.min())
        require(lowest >= 0, name, f"{lowest} is not an expert; experts are numbered from 0")
    return both_2LR
