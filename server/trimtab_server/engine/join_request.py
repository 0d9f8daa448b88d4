"""What a worker says about itself and its deployment when it begins a session."""

from __future__ import annotations

from dataclasses import dataclass

from trimtab_protocol.messages import Hello
from trimtab_server.engine.deployment_spec import DeploymentSpec


@dataclass(frozen=True)
class JoinRequest:
    """A decoded Hello message.

    Attributes:
        spec: the deployment as the worker sees it.
        hello: the part of the message that concerns the rollout.
        staging_slots: number of expert weights that fit into the staging of each of its GPUs.
        max_layers: largest number of layers that one switch may change; 0 for no limit.
    """

    deployment: str
    spec: DeploymentSpec
    hello: Hello
    staging_slots: int
    max_layers: int
