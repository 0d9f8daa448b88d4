"""What a worker says of itself and its deployment when its session begins."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from trimtab_protocol.messages import Hello
from trimtab_server.domain.errors import FailedPreconditionError
from trimtab_server.domain.topology import Topology
from trimtab_server.rollout.cutting import Limits


@dataclass(frozen=True)
class Facts:
    """What all workers of a deployment have to agree on.

    Attributes:
        topology: slots, GPUs, nodes and groups.
        num_layers: L.
        num_experts: E.
        scope: what the workers' counts count: "source", "local" or "global".
        transfer: how weights come into staging: "pull" or "collective".
        bytes_per_expert: size of the weights of one expert in one layer.
        model: which one it serves, for people; empty: not said.
        first_layer: of the model's MoE layers, the first that the deployment has.
    """

    topology: Topology
    num_layers: int
    num_experts: int
    scope: str = ""
    transfer: str = ""
    bytes_per_expert: int = 0
    model: str = ""
    first_layer: int = 0

    @property
    def sizes(self) -> tuple[int, int, int, int]:
        """Layers, slots, experts and GPUs: what is in the store as well."""
        topology = self.topology
        return self.num_layers, topology.num_replicas, self.num_experts, topology.num_gpus

    def adopting(self, other: Facts) -> Facts:
        """These, with what an engine may have changed since its last start as another says it."""
        return replace(
            self,
            scope=other.scope,
            transfer=other.transfer,
            bytes_per_expert=other.bytes_per_expert,
            model=self.model or other.model,
        )

    def differences(self, other: Facts) -> str:
        """Each field in which another's differ, with both values; empty: in none."""
        theirs = other._values()
        return "; ".join(
            f"{name}: {theirs[name]} is not {value}"
            for name, value in self._values().items()
            # Who does not say the model does not differ in it.
            if value != theirs[name] and not (name == "model" and "" in (value, theirs[name]))
        )

    def _values(self) -> dict[str, Any]:
        return {**vars(self.topology), **vars(self), "topology": None}

    def require(self, other: Facts, deployment: str) -> None:
        """Raise FailedPreconditionError for each field in which another worker's differ."""
        differences = self.differences(other)
        if differences:
            raise FailedPreconditionError(f"deployment {deployment!r} differs in {differences}")


@dataclass(frozen=True)
class Arrival:
    """A decoded Hello.

    Attributes:
        deployment: its name.
        facts: of the deployment, as the worker sees it.
        hello: for the switch.
        staging_slots: expert weights that the staging of each of its GPUs has room for.
        max_layers: most layers that one switch may touch; 0: no limit.
    """

    deployment: str
    facts: Facts
    hello: Hello
    staging_slots: int
    max_layers: int


def least_room(arrivals: Sequence[Arrival]) -> Limits:
    """What all of the workers have room for in one switch."""
    layers = [arrival.max_layers for arrival in arrivals if arrival.max_layers]
    return Limits(min(each.staging_slots for each in arrivals), min(layers, default=0))
