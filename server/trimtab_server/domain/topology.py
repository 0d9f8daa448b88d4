"""The slots, GPUs, nodes and router groups of a deployment."""

from __future__ import annotations

from dataclasses import dataclass

from trimtab_server.domain.errors import require_all, store_integers


@dataclass(frozen=True)
class Topology:
    """Slots, GPUs and nodes of a deployment, and the router's groups.

    Attributes:
        num_replicas: R, physical expert slots per layer over all GPUs.
        num_gpus: G, GPUs; it divides R. Slot r lies on GPU r // (R / G).
        num_nodes: N, nodes; it divides G. GPU g lies on node g // (G / N).
        num_groups: router groups of consecutive experts. 1 means global placement; more
            mean hierarchical placement, where the experts of a group stay on one node, and
            each node has equally many groups, so that N divides the number of groups.

    Raises:
        InvalidArgumentError: a number is below 1, or does not divide another as required.
    """

    num_replicas: int
    num_gpus: int
    num_nodes: int = 1
    num_groups: int = 1

    def __post_init__(self) -> None:
        store_integers(self, **vars(self))
        given = vars(self)
        require_all(*((value >= 1, name, f"{value} is below 1") for name, value in given.items()))
        replicas, gpus, nodes, groups = given.values()
        require_all(
            _multiple("num_replicas", replicas, "num_gpus", gpus),
            _multiple("num_gpus", gpus, "num_nodes", nodes),
            *([_multiple("num_groups", groups, "num_nodes", nodes)] if groups > 1 else []),
        )

    @property
    def slots_per_gpu(self) -> int:
        """S, slots on one GPU."""
        return self.num_replicas // self.num_gpus

    @property
    def num_parts(self) -> int:
        """Parts that are planned separately: the nodes if hierarchical, else 1."""
        return self.num_nodes if self.num_groups > 1 else 1

    def check_experts(self, num_experts: int) -> None:
        """Raise InvalidArgumentError if E experts do not fit into this topology."""
        slots, groups = self.num_replicas, self.num_groups
        too_few = f"{slots} slots cannot hold {num_experts} experts"
        uneven = f"{groups} does not divide the number of experts ({num_experts})"
        require_all(
            (slots >= num_experts, "num_replicas", too_few),
            (num_experts % groups == 0, "num_groups", uneven),
        )


def _multiple(name: str, value: int, other_name: str, other: int) -> tuple[bool, str, str]:
    return value % other == 0, name, f"{value} is not a multiple of {other_name} ({other})"
