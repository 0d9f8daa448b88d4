"""The calls that switch, pin and read placements, as messages and back.

All of it is pure. Requests raise InvalidArgumentError where an argument cannot be sent, and
answers ProtocolError where they cannot be read or a placement is not the one that its digest
names.
"""

from __future__ import annotations

from typing import SupportsIndex

import numpy.typing as npt

from trimtab.v1alpha1 import deployment_service_pb2 as pb
from trimtab_client.checks import text
from trimtab_client.deployments import ServedPlacement
from trimtab_client.exceptions import ProtocolError
from trimtab_client.options import MoveBudget
from trimtab_client.placement import Placement
from trimtab_client.results import TriggerResult
from trimtab_client.version import as_version
from trimtab_client.wire_values import (
    budget_message,
    checked_placement,
    named_placement,
    placement_message,
    topology_value,
    version_value,
)
from trimtab_protocol.version import Version
from trimtab_protocol.wire.values import encode_version


def trigger_request(
    deployment: str, placement: Placement | npt.ArrayLike | None, budget: MoveBudget | None
) -> pb.TriggerRequest:
    """The request of `trigger`."""
    return pb.TriggerRequest(
        deployment=text(deployment, "deployment"),
        placement=placement_message(placement, "placement"),
        budget=budget_message(budget),
    )


def pause_request(deployment: str, reason: str) -> pb.PauseRequest:
    """The request of `pause`."""
    return pb.PauseRequest(deployment=text(deployment, "deployment"), reason=text(reason, "reason"))


def resume_request(deployment: str) -> pb.ResumeRequest:
    """The request of `resume`."""
    return pb.ResumeRequest(deployment=text(deployment, "deployment"))


def forget_load_request(deployment: str) -> pb.ForgetLoadRequest:
    """The request of `forget_load`."""
    return pb.ForgetLoadRequest(deployment=text(deployment, "deployment"))


def pin_request(deployment: str, placement: Placement | npt.ArrayLike | None) -> pb.PinRequest:
    """The request of `pin`."""
    return pb.PinRequest(
        deployment=text(deployment, "deployment"),
        placement=placement_message(placement, "placement"),
    )


def unpin_request(deployment: str) -> pb.UnpinRequest:
    """The request of `unpin`."""
    return pb.UnpinRequest(deployment=text(deployment, "deployment"))


def roll_back_request(
    deployment: str, version: Version | SupportsIndex | str
) -> pb.RollBackRequest:
    """The request of `roll_back`."""
    return pb.RollBackRequest(
        deployment=text(deployment, "deployment"),
        version=encode_version(as_version(version, "version")),
    )


def get_placement_request(
    deployment: str, version: Version | SupportsIndex | str | None
) -> pb.GetPlacementRequest:
    """The request of `get_placement`."""
    return pb.GetPlacementRequest(
        deployment=text(deployment, "deployment"),
        version=None if version is None else encode_version(as_version(version, "version")),
    )


def watch_request(
    deployment: str, known: Version | SupportsIndex | str | None
) -> pb.WatchPlacementRequest:
    """The request of `watch_placement`."""
    return pb.WatchPlacementRequest(
        deployment=text(deployment, "deployment"),
        known=None if known is None else encode_version(as_version(known, "known")),
    )


def trigger_result(
    response: pb.TriggerResponse | pb.PinResponse | pb.RollBackResponse,
) -> TriggerResult:
    """The answer of `trigger`, `pin` and `roll_back`, checked."""
    in_force = Version(response.in_force.epoch, response.in_force.generation)
    return TriggerResult(in_force, named_placement(response.target))


def previous_reason(response: pb.PauseResponse | pb.ResumeResponse) -> str | None:
    """The answer of `pause` and `resume`."""
    return response.previous_reason or None


def previous_digest(response: pb.UnpinResponse) -> bytes | None:
    """The answer of `unpin`."""
    return response.previous_digest or None


def served_placement(
    response: pb.GetPlacementResponse | pb.WatchPlacementResponse,
) -> ServedPlacement:
    """The answer of `get_placement`, and each of `watch_placement`, checked."""
    version = version_value(response, "version")
    if version is None:
        raise ProtocolError("the server answered a placement without its version")
    topology = topology_value(response.topology)
    experts, slots = response.num_experts, topology.num_replicas
    shape = list(response.placement.phy2log.shape)
    # Before anything is done by these numbers: an expert takes memory.
    if shape[1:] != [slots] or experts > slots:
        raise ProtocolError(
            f"the server answered a placement of shape {shape} for {experts} experts "
            f"in {slots} slots"
        )
    placement = checked_placement(response.placement, experts, topology.num_gpus)
    return ServedPlacement(version, placement, topology)
