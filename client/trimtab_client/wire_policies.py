"""Policies and decisions as messages and back. Pure."""

from __future__ import annotations

from dataclasses import fields
from datetime import UTC, datetime
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp

from trimtab.v1alpha1 import deployment_service_pb2 as pb
from trimtab_client.exceptions import ProtocolError, invalid
from trimtab_client.policies import Certainty, Decision, Judgement, Mode, Policy, Reason
from trimtab_client.wire_values import given, optional_real, optional_uint32, step_value

_MODES = {
    Mode.OFF: pb.MODE_OFF,
    Mode.SHADOW: pb.MODE_SHADOW,
    Mode.ACTIVE: pb.MODE_ACTIVE,
}
_MODES_BACK: dict[int, Mode] = {number: mode for mode, number in _MODES.items()}
_REASONS_BACK: dict[int, Reason] = {
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
    """A policy. What is None is not set.

    Raises:
        InvalidArgumentError: a value cannot be sent.
    """
    if policy.mode is Mode.UNKNOWN:
        names = [mode.value for mode in _MODES]
        raise invalid("policy.mode", f"{policy.mode.value!r} is not one of {names}")
    mode = pb.MODE_UNSPECIFIED if policy.mode is None else _MODES[policy.mode]
    told: dict[str, Any] = {
        **{name: optional_real(getattr(policy, name), f"policy.{name}") for name in _REALS},
        **{name: optional_uint32(getattr(policy, name), f"policy.{name}") for name in _INTEGERS},
    }
    return pb.Policy(mode=mode, **told)


def policy_value(message: pb.Policy) -> Policy:
    """A policy that the server answered."""
    told: dict[str, Any] = {
        name: getattr(message, name) for name in (*_REALS, *_INTEGERS) if message.HasField(name)
    }
    mode = None if message.mode == pb.MODE_UNSPECIFIED else _mode(message.mode)
    return Policy(mode=mode, **told)


def decision_value(message: pb.Decision) -> Decision:
    """A decision that the server answered.

    Raises:
        ProtocolError: its time is none.
    """
    return Decision(
        time=_time(message.time),
        step=step_value(message.step),
        reason=_REASONS_BACK.get(message.reason, Reason.UNKNOWN),
        detail=message.detail,
        mode=_mode(message.mode),
        imbalance_before=given(message, "imbalance_before"),
        imbalance_after=given(message, "imbalance_after"),
        moves=message.moves,
        move_seconds=message.move_seconds,
        times=message.times,
        certainty=_certainty(message.certainty) if message.HasField("certainty") else None,
        judged=judgement_value(message.judged) if message.HasField("judged") else None,
    )


def judgement_value(message: pb.Judgement) -> Judgement:
    """What has come of a switch."""
    return Judgement(
        step=step_value(message.step),
        steps=message.steps,
        promised=message.promised,
        realised=message.realised,
    )


def _certainty(message: pb.Certainty) -> Certainty:
    return Certainty(**{field.name: getattr(message, field.name) for field in fields(Certainty)})


def _mode(number: int) -> Mode:
    return _MODES_BACK.get(number, Mode.UNKNOWN)


def _time(message: Timestamp) -> datetime:
    try:
        return message.ToDatetime(tzinfo=UTC)
    except (ValueError, OverflowError) as error:
        raise ProtocolError(f"the server answered a decision at no time: {error}") from error
