"""`python -m tests.solver.thread_counts`: which calls of the solver wake threads of torch.

Prints a JSON object: for each call, how many threads the process has gained by it, without
Trimtab's own.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import torch

from trimtab_server.domain.topology import Topology
from trimtab_server.solver import (
    Budget,
    align,
    balanced_packing,
    evaluate,
    improve,
    place,
    rebalance_experts,
    rebalance_phy2log,
    replicate_experts,
)

TASKS = Path("/proc/self/task")

LAYERS, EXPERTS, REPLICAS, GPUS = 40_000, 4, 6, 2
"""So many layers that a tensor with one number per layer is large enough for torch's threads."""

CONTROL = "an operation of torch"


def calls() -> dict[str, Callable[[], object]]:
    """All public calls, and one that is known to wake threads."""
    rng = np.random.default_rng(0)
    load = rng.integers(0, 1000, (LAYERS, EXPERTS))
    tensor, topology = torch.from_numpy(load.astype(np.float32)), Topology(REPLICAS, GPUS)
    start = torch.from_numpy(np.tile(np.arange(REPLICAS, dtype=np.int32) % EXPERTS, (LAYERS, 1)))
    new, half, budget = start.flip(1), tensor.bfloat16(), Budget(2, 1000)
    sizes, nodes = (REPLICAS, 1, 1, GPUS), (REPLICAS, 2, 2, GPUS)
    return {
        "balanced_packing": lambda: balanced_packing(tensor, GPUS),
        "balanced_packing of groups": lambda: balanced_packing(load, GPUS, item_group=load % 3),
        "replicate_experts": lambda: replicate_experts(half, REPLICAS),
        "place": lambda: place(tensor, topology),
        "place on nodes": lambda: place(tensor, Topology(REPLICAS, GPUS, 2, 2)),
        "place aligned": lambda: place(load, topology, current=start),
        "place within a budget": lambda: place(load, topology, current=start, budget=budget),
        "improve": lambda: improve(start, tensor, GPUS, max_moves_per_layer=1),
        "align": lambda: align(new, start, GPUS),
        "evaluate": lambda: evaluate(start, load, GPUS, current=new, bytes_per_expert=7),
        "rebalance_experts": lambda: rebalance_experts(tensor, *sizes),
        "rebalance_experts on nodes": lambda: rebalance_experts(load, *nodes, effort="fast"),
        "rebalance_phy2log": lambda: rebalance_phy2log(tensor, *sizes, start),
        "rebalance_phy2log of groups astray": lambda: rebalance_phy2log(load, *nodes, new),
        "rebalance_phy2log anew": lambda: rebalance_phy2log(half, *sizes, start, budget=None),
        "rebalance_phy2log of survivors": lambda: rebalance_phy2log(load, *sizes, start[:, 2:]),
        CONTROL: lambda: torch.zeros(1 << 20).exp(),
    }


def main() -> None:
    """Print the counts."""
    torch.set_num_threads(4)
    print(json.dumps({name: _count(call) for name, call in calls().items()}))


def _count(call: Callable[[], object]) -> int:
    """The new threads of a call, made on a new thread, since torch has a pool for each caller."""
    new: set[int] = set()

    def watch() -> None:
        before = set(_threads())
        call()
        # Python's threads are those of `for_parts`, and this one.
        ours = {thread.native_id for thread in threading.enumerate()}
        new.update(set(_threads()) - before - ours)

    thread = threading.Thread(target=watch)
    thread.start()
    thread.join()
    return len(new)


def _threads() -> Iterable[int]:
    return (int(task.name) for task in TASKS.iterdir())


if __name__ == "__main__":
    main()
