"""Planners of other projects, from files that the user names and that define

    rebalance_experts(weight, num_replicas, num_groups, num_nodes, num_gpus)

It takes a float32 tensor [L, E] on the CPU and returns phy2log [L, R], or a tuple that
begins with it, as tensors, arrays or lists; all are checked in the same way.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from trimtab_server.domain.topology import Topology

FUNCTION = "rebalance_experts"


def load_peer(path: str) -> Callable[[Tensor, Topology], Tensor]:
    """Run a file, and return the planner that it defines."""
    name = f"trimtab_peer_{abs(hash(Path(path).resolve()))}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and torch.jit look their module up there
    try:
        spec.loader.exec_module(module)
    except SystemExit as exit_:
        raise ImportError(f"{path} exits with {exit_.code} when it is imported") from exit_
    function = getattr(module, FUNCTION)

    def plan(load_LE: Tensor, topology: Topology) -> Tensor:
        groups, nodes = (topology.num_groups, topology.num_nodes)
        if topology.num_parts == 1:
            groups = nodes = 1
        # A copy, since some planners work in place.
        weight_LE = load_LE.to(torch.float32, copy=True)
        answer = function(weight_LE, topology.num_replicas, groups, nodes, topology.num_gpus)
        return _phy2log(answer)

    return plan


def _phy2log(answer: Any) -> Tensor:
    first = answer[0] if isinstance(answer, tuple) else answer
    if isinstance(first, Tensor):
        return first.detach().cpu()
    return torch.from_numpy(np.array(first))
