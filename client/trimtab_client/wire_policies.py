"""Policies and decisions as messages and back. Errors are those of `wire_values`."""

from __future__ import annotations

from dataclasses import fields
from datetime import UTC, datetime
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp

from trimtab.v1alpha1 import deployment_service_pb2 as pb
from trimtab_client.exceptions import ProtocolError, invalid
from trimtab_client.policies import Certainty, Decision, Judgement, Mode, Policy, Reason
from trimtab_client.wire_values import optional_field, optional_real, optional_uint32, step_value

_MODES = {
    Mode.OFF: pb.MODE_OFF,
    Mode.SHADOW: pb.MODE_SHADOW,
    Mode.ACTIVE: pb.MODE_ACTIVE,
}
_MODES_BACK: dict[int, Mode] = {number: mode for mode, number in _MODES.items()}
_REASONS: dict[int, Reason] = {
    pb.REASON_NOT_READY: Reason.NOT_READY,
    pb.REASON_TOO_SOON: Reason.TOO_SOON,
    pb.REASON_NO_LOAD: Reason.NO_LOAD,
    pb.REASON_NOT_ENOUGH_EVIDENCE: Reason.NOT_ENOUGH_EVIDENCE,
    pb.REASON_COOLDOWN: Reason.COOLDOWN,
    pb.REASON_BALANCED: Reason.BALANCED,
    pb.REASON_SMALL_GAIN: Reason.SMALL_GAIN,
    pb.REASON_TOO_COSTLY: Reason.TOO_COSTLY,
    pb.REASON_IMPROVED: Reason.IMPROVED,
    pb.REASON_REPLANNED: Reason.REPLANNED,
}
_REALS = (
    *("half_life_steps", "window_steps", "least_gain", "replan_gap"),
    *("moe_share", "node_bandwidth", "cross_node_bandwidth"),
)
_INTEGERS = ("every_steps", "cooldown_steps", "max_moves_per_layer", "max_moves", "horizon_steps")


def policy_message(policy: Policy) -> pb.Policy:
    """A policy as a message. Settings that are None are not set."""
    if policy.mode is Mode.UNKNOWN:
        names = [mode.value for mode in _MODES]
        raise invalid("policy.mode", f"{policy.mode.value!r} is not one of {names}")
    mode = pb.MODE_UNSPECIFIED if policy.mode is None else _MODES[policy.mode]
    settings: dict[str, Any] = {
        **{name: optional_real(getattr(policy, name), f"policy.{name}") for name in _REALS},
        **{name: optional_uint32(getattr(policy, name), f"policy.{name}") for name in _INTEGERS},
    }
    return pb.Policy(mode=mode, **settings)


def policy_value(message: pb.Policy) -> Policy:
    """The policy in a message."""
    settings = {name: optional_field(message, name) for name in (*_REALS, *_INTEGERS)}
    mode = None if message.mode == pb.MODE_UNSPECIFIED else _mode(message.mode)
    return Policy(mode=mode, **settings)


def decision_value(message: pb.Decision) -> Decision:
    """The decision in a message."""
    return Decision(
        time=_time(message.time),
        step=step_value(message.step),
        reason=_REASONS.get(message.reason, Reason.UNKNOWN),
        detail=message.detail,
        mode=_mode(message.mode),
        imbalance_before=optional_field(message, "imbalance_before"),
        imbalance_after=optional_field(message, "imbalance_after"),
        moves=message.moves,
        move_seconds=message.move_seconds,
        times=message.times,
        certainty=_certainty(message.certainty) if message.HasField("certainty") else None,
        judged=judgement_value(message, "judged"),
    )


def decision_values(response: pb.ListDecisionsResponse) -> list[Decision]:
    """The answer of `decisions`."""
    return [decision_value(message) for message in response.decisions]


def judgement_value(message: Any, field: str) -> Judgement | None:
    """The judgement of a switch in a field of a message; None if it is not set."""
    judged = optional_field(message, field)
    if judged is None:
        return None
    return Judgement(
        step=step_value(judged.step),
        steps=judged.steps,
        promised=judged.promised,
        realised=judged.realised,
    )


def _certainty(message: pb.Certainty) -> Certainty:
    return Certainty(**{field.name: getattr(message, field.name) for field in fields(Certainty)})


def _mode(number: int) -> Mode:
    return _MODES_BACK.get(number, Mode.UNKNOWN)


def _time(message: Timestamp) -> datetime:
    try:
        return message.ToDatetime(tzinfo=UTC)
    except (ValueError, OverflowError) as error:
        raise ProtocolError(f"the server sent a decision with an invalid time: {error}") from error
