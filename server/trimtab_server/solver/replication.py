"""replicate_experts: gives the slots beyond one for each expert to the hottest experts."""

from __future__ import annotations

from operator import index
from typing import Any

from trimtab_server.domain.arrays import as_amounts
from trimtab_server.domain.errors import require, require_integers
from trimtab_server.solver.backends.backend import Backend, Replicas, replica_cap
from trimtab_server.solver.backends.select import BackendName, backend_for


def replicate_experts(
    weight: Any,
    num_replicas: int,
    *,
    max_replicas: int | None = None,
    backend: BackendName | Backend = "auto",
) -> Replicas:
    """Give each expert a slot, and each further slot to the highest load per replica.

    This minimises the largest load per replica (DeepSeek's EPLB,
    `replicate_experts`). Ties go to the lowest expert.

    Args:
        weight: [X, E] of any real dtype, finite, >= 0.
        num_replicas: R >= E, slots of a row.
        max_replicas: replicas allowed for one expert, such as the number of GPUs that it
            may lie on. If R > E * max_replicas, the limit is R / E, rounded up.
        backend: see `backend_for`.

    Returns:
        A tuple of three.
        phy2log: int64 [X, R], the expert of each replica: first 0 … E - 1, then
            the further replicas in the order in which they were given.
        rank: int64 [X, R], the index of each replica among those of its expert.
        logcnt: int64 [X, E], replicas of each expert.

    Raises:
        InvalidArgumentError: an argument breaks a rule above.
    """
    weight_XE = as_amounts(weight, "weight")
    experts = weight_XE.shape[1]
    require_integers(num_replicas=num_replicas, max_replicas=max_replicas or 0)
    too_few = f"{num_replicas} slots cannot hold {experts} experts"
    require(num_replicas >= experts, "num_replicas", too_few)
    require(max_replicas is None or max_replicas >= 1, "max_replicas", f"{max_replicas} is below 1")
    num_replicas = index(num_replicas)
    wanted = min(index(max_replicas or num_replicas), num_replicas)
    limit = replica_cap(num_replicas, experts, wanted)
    return backend_for(backend, weight_XE.device).replicate(weight_XE, num_replicas, limit)
