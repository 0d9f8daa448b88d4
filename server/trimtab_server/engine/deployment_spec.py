"""What all workers of a deployment have to agree on."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from trimtab_protocol.messages import SwitchedBy
from trimtab_server.domain.errors import FailedPreconditionError
from trimtab_server.domain.topology import Topology
from trimtab_server.rollout.record import Record


@dataclass(frozen=True)
class DeploymentSpec:
    """The model of a deployment, the GPUs that serve it, and how its engine counts and copies.

    Attributes:
        topology: slots, GPUs, nodes and groups.
        num_layers: L.
        num_experts: E.
        scope: what the workers' counts count: "source", "local" or "global".
        transfer: how weights come into staging: "pull" or "collective".
        bytes_per_expert: size of the weights of one expert in one layer.
        model: name of the model, for people; empty if it is unknown.
        first_layer: index of the deployment's first layer among the model's MoE layers.
        switched_by: who moves the weights.
    """

    topology: Topology
    num_layers: int
    num_experts: int
    scope: str = ""
    transfer: str = ""
    bytes_per_expert: int = 0
    model: str = ""
    first_layer: int = 0
    switched_by: str = SwitchedBy.WORKERS

    @property
    def by_engine(self) -> bool:
        """Whether the engine switches it by itself."""
        return self.switched_by == SwitchedBy.ENGINE

    @property
    def sizes(self) -> tuple[int, int, int, int]:
        """Numbers of layers, slots, experts and GPUs. The store has them as well."""
        topology = self.topology
        return self.num_layers, topology.num_replicas, self.num_experts, topology.num_gpus

    def updated_from(self, other: DeploymentSpec) -> DeploymentSpec:
        """This spec with the fields of `other` that an engine may change when it restarts."""
        return replace(
            self,
            scope=other.scope,
            transfer=other.transfer,
            bytes_per_expert=other.bytes_per_expert,
            model=self.model or other.model,
        )

    def differences(self, other: DeploymentSpec) -> str:
        """Each field in which `other` differs, with both values; empty if they are equal."""
        theirs = other._values()
        return "; ".join(
            f"{name}: {theirs[name]} is not {value}"
            for name, value in self._values().items()
            # An unknown model is no difference.
            if value != theirs[name] and not (name == "model" and "" in (value, theirs[name]))
        )

    def require_agreement(self, other: DeploymentSpec, deployment: str) -> None:
        """Raise FailedPreconditionError if a worker says another spec than this."""
        differences = self.differences(other)
        if differences:
            raise FailedPreconditionError(f"deployment {deployment!r} differs in {differences}")

    def require_same_sizes(self, record: Record, deployment: str) -> None:
        """Raise FailedPreconditionError if the stored record is of other sizes."""
        placement = record.placement
        if placement is None:
            return
        stored = (*placement.phy2log.shape, placement.num_experts, placement.num_gpus)
        if stored != self.sizes:
            raise FailedPreconditionError(
                f"deployment {deployment!r} is stored with layers, slots, experts and GPUs "
                f"{stored}, not {self.sizes}: give the new one another name, or delete the old one"
            )

    def _values(self) -> dict[str, Any]:
        return {**vars(self.topology), **vars(self), "topology": None}
