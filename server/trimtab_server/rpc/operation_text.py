"""What operations changed, in a few words for people."""

from __future__ import annotations

from dataclasses import asdict
from enum import Enum

from trimtab_protocol.placement import Placement
from trimtab_server.engine.deployment import Deployment
from trimtab_server.policy.policy import Policy
from trimtab_server.rollout.record import Served

_DIGITS = 12


def placement_text(placement: Placement | None) -> str:
    """The first digits of a placement's digest; empty for None."""
    return "" if placement is None else placement.digest.hex()[:_DIGITS]


def served_text(served: Served) -> str:
    """Version and placement, such as "1.3 (0a1b2c3d4e5f)"."""
    return f"{served.version} ({placement_text(served.placement)})"


def deployment_text(deployment: Deployment) -> str:
    """Size and mode of a deployment."""
    spec, topology = deployment.spec, deployment.spec.topology
    slots = f"{topology.num_replicas} slots on {topology.num_gpus} GPUs"
    size = f"{spec.num_layers} layers of {spec.num_experts} experts in {slots}"
    return f"{size}; mode {deployment.policy.mode.value}"


def policy_texts(before: Policy, after: Policy) -> tuple[str, str]:
    """The settings in which two policies differ, as each has them."""
    old, new = asdict(before), asdict(after)
    changed = [name for name, value in new.items() if value != old[name]]
    return _settings(old, changed), _settings(new, changed)


def _settings(values: dict[str, object], names: list[str]) -> str:
    shown = ((name, values[name]) for name in names)
    return ", ".join(f"{name}={v.value if isinstance(v, Enum) else v}" for name, v in shown)
