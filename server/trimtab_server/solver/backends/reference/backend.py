"""The backend that defines the answers: batched torch operations, on any device."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from trimtab_server.domain.balance import gpu_loads, imbalance
from trimtab_server.domain.moves import Moves, moves_between
from trimtab_server.domain.topology import Topology
from trimtab_server.solver.backends.backend import Backend, Packing, Replicas, Solved
from trimtab_server.solver.backends.reference.align import align
from trimtab_server.solver.backends.reference.bound import lowest_imbalance
from trimtab_server.solver.backends.reference.improve import improve
from trimtab_server.solver.backends.reference.maps import slot_maps
from trimtab_server.solver.backends.reference.packing import pack
from trimtab_server.solver.backends.reference.plan import plan
from trimtab_server.solver.backends.reference.replication import replicate
from trimtab_server.solver.budget import Budget
from trimtab_server.solver.settings import Settings


class Reference:
    """Readable and slow: the other backends are compared with it. See `Backend`."""

    name = "reference"

    @property
    def host(self) -> Backend:
        """See `Backend`."""
        return self

    @property
    def kinds(self) -> Mapping[str, int]:
        """See `Backend`."""
        return {}

    def replicate(self, load_XE: Tensor, num_replicas: int, limit: int) -> Replicas:
        """See `Backend`."""
        return replicate(load_XE, num_replicas, limit)

    def pack(
        self, weight_XI: Tensor, num_packs: int, group_XI: Tensor | None, settings: Settings
    ) -> Packing:
        """See `Backend`."""
        return pack(weight_XI, num_packs, group_XI, settings)

    def plan(self, load_LE: Tensor, topology: Topology, settings: Settings) -> Solved:
        """See `Backend`."""
        return plan(load_LE, topology, settings)

    def improve(
        self, start_LR: Tensor, load_LE: Tensor, topology: Topology, budget: Budget, top_k: int
    ) -> Solved:
        """See `Backend`."""
        return improve(start_LR, load_LE, topology, budget, top_k)

    def bound(self, load_LE: Tensor, topology: Topology) -> Tensor:
        """See `Backend`."""
        return lowest_imbalance(load_LE, topology)

    def balance(self, phy2log_LR: Tensor, load_LE: Tensor, num_gpus: int) -> tuple[Tensor, Tensor]:
        """See `Backend`."""
        gpu_load_LG = gpu_loads(phy2log_LR, load_LE, num_gpus)
        return gpu_load_LG, imbalance(gpu_load_LG)

    def moves(self, current_LR: Tensor, new_LR: Tensor, num_experts: int, num_gpus: int) -> Moves:
        """See `Backend`."""
        return moves_between(current_LR, new_LR, num_experts, num_gpus)

    def align(
        self,
        new_LR: Tensor,
        current_LR: Tensor,
        num_experts: int,
        num_gpus: int,
        num_nodes: int,
    ) -> Tensor:
        """See `Backend`."""
        return align(new_LR, current_LR, num_experts, num_gpus, num_nodes)

    def slot_maps(self, phy2log_LR: Tensor, num_experts: int) -> tuple[Tensor, Tensor]:
        """See `Backend`."""
        return slot_maps(phy2log_LR, num_experts)
