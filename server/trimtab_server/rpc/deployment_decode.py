"""Converts requests of operators to values of the server."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from trimtab.v1 import placement_pb2
from trimtab.v1alpha1 import deployment_service_pb2 as pb
from trimtab.v1alpha1 import switch_pb2
from trimtab_protocol.messages import SwitchedBy
from trimtab_protocol.operations import MAX_WAIT_S
from trimtab_protocol.placement import Placement
from trimtab_protocol.version import Version
from trimtab_server.domain.errors import NotFoundError, require, require_all
from trimtab_server.domain.placement import placement_of
from trimtab_server.engine.deployment_spec import DeploymentSpec
from trimtab_server.policy.policy import FORMER_SETTINGS, Mode, Policy
from trimtab_server.rollout.record import Record, Served
from trimtab_server.rpc.decode import decode_tensor, decode_topology
from trimtab_server.rpc.fields import named_as

MAX_NAME = 200
_MAX_REASON = 1000
"""Maximum length of a reason, which is stored, logged and repeated in errors, in characters."""

_MAX_NUMBERS = 1 << 26
"""Maximum number of values in a load or a placement."""

MODES: Mapping[int, Mode] = {
    pb.MODE_OFF: Mode.OFF,
    pb.MODE_SHADOW: Mode.SHADOW,
    pb.MODE_ACTIVE: Mode.ACTIVE,
}
SWITCHED_BY: Mapping[int, str] = {
    pb.SWITCHED_BY_UNSPECIFIED: SwitchedBy.WORKERS,
    pb.SWITCHED_BY_WORKERS: SwitchedBy.WORKERS,
    pb.SWITCHED_BY_ENGINE: SwitchedBy.ENGINE,
}
POLICY_FIELDS = [
    field.name
    for field in pb.Policy.DESCRIPTOR.fields
    if field.name != "mode" and field.name not in FORMER_SETTINGS
]
_TOPOLOGY_FIELDS = ("num_replicas", "num_gpus", "num_nodes", "num_groups", "num_experts")


def decode_spec(message: pb.DeploymentSpec) -> tuple[str, DeploymentSpec]:
    """The name and the spec of a deployment. Raises InvalidArgumentError."""
    name, model, start = message.name, message.model, f"{message.name[:40]!r}"
    length = f"{start} does not have 1 to {MAX_NAME} characters"
    excess = f"has {len(model)} characters, which is more than {MAX_NAME}"
    require_all(
        (0 < len(name) <= MAX_NAME, "spec.name", length),
        (name.isprintable(), "spec.name", f"{start} is not printable"),
        (model.isprintable(), "spec.model", f"{model[:40]!r} is not printable"),
        (len(model) <= MAX_NAME, "spec.model", excess),
        (message.num_layers >= 1, "spec.num_layers", f"{message.num_layers} is below 1"),
        (message.num_experts >= 1, "spec.num_experts", f"{message.num_experts} is below 1"),
    )
    paths = {field: f"spec.topology.{field}" for field in _TOPOLOGY_FIELDS}
    with named_as({**paths, "num_experts": "spec.num_experts"}):
        topology = decode_topology(message.topology)
        topology.check_experts(message.num_experts)
    numbers = message.num_layers * max(message.num_experts, topology.num_replicas)
    require(
        numbers <= _MAX_NUMBERS,
        "spec.num_layers",
        f"{message.num_layers} layers with so many experts or slots exceed {_MAX_NUMBERS} values",
    )
    by, sizes = message.switched_by, (topology, message.num_layers, message.num_experts)
    require(by in SWITCHED_BY, "spec.switched_by", f"{by} is not a known value")
    spec = DeploymentSpec(*sizes, model=model, first_layer=message.first_layer)
    return name, replace(spec, switched_by=SWITCHED_BY[by])


def decode_policy(message: pb.Policy) -> Callable[[Policy], Policy]:
    """A function that changes the fields of a policy that the message sets.

    Raises:
        InvalidArgumentError: the mode is unknown, or a setting no longer exists. The returned
            function raises it if the changed policy is invalid.
    """
    require_all(
        *(
            (not message.HasField(name), f"policy.{name}", f"is no longer a setting: {advice}")
            for name, advice in FORMER_SETTINGS.items()
        )
    )
    given: dict[str, Any] = {
        name: getattr(message, name) for name in POLICY_FIELDS if message.HasField(name)
    }
    # At most one of the two may be above 0, so setting one turns the other off.
    for name, other in _EITHER:
        if given.get(name, 0) > 0:
            given.setdefault(other, 0.0)
    if message.mode != pb.MODE_UNSPECIFIED:
        require(message.mode in MODES, "policy.mode", f"{message.mode} is not a known mode")
        given["mode"] = MODES[message.mode]

    def changed(policy: Policy) -> Policy:
        with named_as({name: f"policy.{name}" for name in POLICY_FIELDS}):
            return replace(policy, **given)

    return changed


_EITHER = (("half_life_steps", "window_steps"), ("window_steps", "half_life_steps"))


def decode_target(message: placement_pb2.Placement, spec: DeploymentSpec) -> Placement:
    """A placement of a deployment. Takes long. Raises InvalidArgumentError."""
    phy2log_LR = decode_tensor(message.phy2log, "placement.phy2log")
    expected = [spec.num_layers, spec.topology.num_replicas]
    shape = list(phy2log_LR.shape)
    require(shape == expected, "placement.phy2log.shape", f"{shape} is not {expected}")
    placement = placement_of(phy2log_LR, spec.num_experts, spec.topology.num_gpus)
    digest = placement.digest
    require(
        message.digest in (b"", digest),
        "placement.digest",
        f"{message.digest.hex()[:64]} is not the digest of placement.phy2log, {digest.hex()}",
    )
    return placement


def find_served(message: switch_pb2.Version, record: Record, deployment: str) -> Served:
    """The current or an earlier placement, by its version. Raises NotFoundError."""
    known = list(record.past)
    if record.in_force is not None and record.placement is not None:
        known.append(Served(record.in_force, record.placement))
    for served in reversed(known):
        version = served.version
        if version.generation == message.generation and message.epoch in (0, version.epoch):
            return served
    wanted = Version(message.epoch, message.generation) if message.epoch else message.generation
    kept = ", ".join(str(served.version) for served in known) or "none"
    raise NotFoundError(
        f"deployment {deployment!r} has no version {wanted}; the versions that it has are {kept}"
    )


def decode_wait(seconds: float) -> float:
    """How long to wait. Raises InvalidArgumentError if that is no time."""
    good = 0 <= seconds <= MAX_WAIT_S
    require(good, "wait_seconds", f"{seconds:g} is not a time of 0 to {MAX_WAIT_S:g} seconds")
    return seconds


def require_reason(reason: str) -> None:
    """Raises InvalidArgumentError if a reason is blank or too long."""
    require(bool(reason.strip()), "reason", f"{reason!r} is blank")
    excess = f"has {len(reason)} characters, which is more than {_MAX_REASON}"
    require(len(reason) <= _MAX_REASON, "reason", excess)
