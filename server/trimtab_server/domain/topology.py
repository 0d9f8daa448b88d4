"""Where the experts of one model instance may lie."""

from __future__ import annotations

from dataclasses import dataclass

from trimtab_server.domain.errors import require


@dataclass(frozen=True)
class Topology:
    """Slots, GPUs and nodes of a deployment, and the router's groups.

    Attributes:
        num_replicas: R, physical expert slots per layer over all GPUs.
        num_gpus: G, GPUs; it divides R. Slot r lies on GPU r // (R / G).
        num_nodes: N, nodes; it divides G. GPU g lies on node g // (G / N).
        num_groups: router groups of consecutive experts. 1 asks for global
            placement; more for hierarchical placement, where the experts of a
            group stay on one node: then N divides it.

    Raises:
        InvalidArgumentError: a number is below 1 or a division leaves a rest.
    """

    num_replicas: int
    num_gpus: int
    num_nodes: int = 1
    num_groups: int = 1

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            require(value >= 1, name, f"{value} is below 1")
        _require_multiple("num_replicas", self.num_replicas, "num_gpus", self.num_gpus)
        _require_multiple("num_gpus", self.num_gpus, "num_nodes", self.num_nodes)
        if self.num_groups > 1:
            _require_multiple("num_groups", self.num_groups, "num_nodes", self.num_nodes)

    @property
    def slots_per_gpu(self) -> int:
        """S, slots on one GPU."""
        return self.num_replicas // self.num_gpus

    @property
    def gpus_per_node(self) -> int:
        """GPUs on one node."""
        return self.num_gpus // self.num_nodes

    @property
    def slots_per_node(self) -> int:
        """Slots on one node."""
        return self.num_replicas // self.num_nodes

    @property
    def home_nodes(self) -> int:
        """Into how many node-sized parts placement is divided: N if hierarchical, else 1."""
        return self.num_nodes if self.num_groups > 1 else 1

    def check_experts(self, num_experts: int) -> None:
        """Raise InvalidArgumentError unless E experts fit into this topology."""
        require(
            self.num_replicas >= num_experts,
            "num_replicas",
            f"{self.num_replicas} slots cannot hold {num_experts} experts",
        )
        if self.num_groups > 1:
            _require_multiple(
                "num_groups", self.num_groups, "number of experts", num_experts, divides=True
            )


def _require_multiple(
    name: str, value: int, other_name: str, other: int, *, divides: bool = False
) -> None:
    if divides:
        require(other % value == 0, name, f"{value} does not divide {other_name} ({other})")
    else:
        require(value % other == 0, name, f"{value} is not a multiple of {other_name} ({other})")
