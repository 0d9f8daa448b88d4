"""The load of GPUs whose engine splits each expert's tokens over its replicas as evenly as it can.

Engines usually send every replica of an expert the same share of its tokens. Some solve, for each
batch, which shares make the heaviest GPU lightest. Then a placement is as good as its best split.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from trimtab_server.domain.arrays import as_amounts, check_placement
from trimtab_server.domain.topology import Topology


def best_split_loads(phy2log: Any, load: Any, num_gpus: int) -> Tensor:
    """Load of each GPU with the split of the smallest sum of squared GPU loads.

    Of all splits, it also has the smallest heaviest GPU: the loads that can be reached are the base
    of a polymatroid, and one of its vectors is least majorised (Fujishige, "Lexicographically
    optimal base of a polymatroid with respect to a weight vector", 1980). It is found by block
    coordinate descent: the tokens of one expert after another fill up the lightest of its GPUs,
    until that changes nothing, or 300 times. The heaviest GPU that is found is never lighter than
    the best, and heavier by less than a thousandth unless hundreds of GPUs form a chain.

    Args:
        phy2log: int [L, R], the placement.
        load: [L, E], tokens of each expert; finite, >= 0.
        num_gpus: G; it divides R.

    Returns:
        float64 [L, G], on the CPU.

    Raises:
        InvalidArgumentError: an argument breaks a rule above.
    """
    load_LE = as_amounts(load, "load").cpu()
    phy2log_LR = check_placement(phy2log, "phy2log", load_LE)
    num_gpus = Topology(phy2log_LR.shape[1], num_gpus).num_gpus  # checked
    gpu_load_LG = np.empty((len(load_LE), num_gpus))
    # Imported here, since Numba takes long to import, and most deployments do not need this.
    from trimtab_server.solver.backends.cpu.split import split_layers

    split_layers(phy2log_LR.numpy(), load_LE.numpy(), gpu_load_LG)
    return torch.from_numpy(gpu_load_LG)
