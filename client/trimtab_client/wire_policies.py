"""Policies and decisions as messages and back. Errors are those of `wire_values`."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime

from google.protobuf.timestamp_pb2 import Timestamp

from trimtab.v1alpha1 import deployment_service_pb2 as pb
from trimtab_client.checks import real
from trimtab_client.exceptions import ProtocolError, invalid
from trimtab_client.policies import Certainty, Decision, Judgement, Mode, Policy, Reason
from trimtab_client.wire_values import Check, checked, step_value, uint32
from trimtab_protocol.wire.values import numbers_of, optional, value_of

_MODES = numbers_of([mode for mode in Mode if mode is not Mode.UNKNOWN], pb.Mode, "MODE")
_MODES_BACK: Mapping[int, Mode] = {number: mode for mode, number in _MODES.items()}
_REASONS = {
    pb.Reason.Value(f"REASON_{reason.name}"): reason
    for reason in Reason
    if reason is not Reason.UNKNOWN
}
_SETTINGS: Mapping[str, Check] = {
    **dict.fromkeys(("half_life_steps", "window_steps", "least_gain", "replan_gap"), real),
    **dict.fromkeys(("moe_share", "node_bandwidth", "cross_node_bandwidth"), real),
    **dict.fromkeys(("every_steps", "cooldown_steps", "horizon_steps"), uint32),
    **dict.fromkeys(("max_moves_per_layer", "max_moves"), uint32),
}


def policy_message(policy: Policy) -> pb.Policy:
    """A policy as a message. Settings that are None are not set."""
    if policy.mode is Mode.UNKNOWN:
        names = [mode.value for mode in _MODES]
        raise invalid("policy.mode", f"{policy.mode.value!r} is not one of {names}")
    mode = pb.MODE_UNSPECIFIED if policy.mode is None else _MODES[policy.mode]
    return pb.Policy(mode=mode, **checked(policy, "policy", _SETTINGS))


def policy_value(message: pb.Policy) -> Policy:
    """The policy in a message."""
    mode = None if message.mode == pb.MODE_UNSPECIFIED else _mode(message.mode)
    return value_of(Policy, message, mode=mode)


def decision_value(message: pb.Decision) -> Decision:
    """The decision in a message."""
    return value_of(
        Decision,
        message,
        time=_time(message.time),
        step=step_value(message.step),
        reason=_REASONS.get(message.reason, Reason.UNKNOWN),
        mode=_mode(message.mode),
        certainty=optional(message, "certainty", lambda said: value_of(Certainty, said)),
        judged=optional(message, "judged", judgement_value),
    )


def decision_values(response: pb.ListDecisionsResponse) -> list[Decision]:
    """The answer of `decisions`."""
    return [decision_value(message) for message in response.decisions]


def judgement_value(message: pb.Judgement) -> Judgement:
    """The judgement of a switch in a message."""
    return value_of(Judgement, message, step=step_value(message.step))


def _mode(number: int) -> Mode:
    return _MODES_BACK.get(number, Mode.UNKNOWN)


def _time(message: Timestamp) -> datetime:
    try:
        return message.ToDatetime(tzinfo=UTC)
    except (ValueError, OverflowError) as error:
        raise ProtocolError(f"the server sent a decision with an invalid time: {error}") from error
