"""Messages of a worker as values. Pure; everything wrong with a Hello at once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Any

import numpy as np

from trimtab.v1alpha1 import session_service_pb2, switch_pb2
from trimtab_server.domain.errors import invalid, require, require_all
from trimtab_server.domain.placement import Placement
from trimtab_server.domain.topology import Topology
from trimtab_server.domain.version import Version
from trimtab_server.engine.deployment_spec import DeploymentSpec
from trimtab_server.engine.join_request import JoinRequest
from trimtab_server.loads.counters import Report
from trimtab_server.rollout.messages import (
    Accepted,
    Answer,
    Applied,
    Discarded,
    Held,
    HeldState,
    Hello,
    Prepared,
    Refused,
)
from trimtab_server.rpc.decode import decode_topology
from trimtab_server.rpc.fields import gather, named_as
from trimtab_server.rpc.tensors import decode_tensor

_MOST_TEXT = 1000
_MOST_SHOWN = 8

_MOST_TOKENS = 1 << 62
"""Of one worker, all together: more do not fit into the sums, and take a hundred years to count."""

_MOST_NUMBER = 1 << 53
"""Of terms, epochs and generations: what JSON and SQLite keep exactly, with room to rise."""

_SCOPES: Mapping[int, str] = {
    session_service_pb2.SCOPE_SOURCE: "source",
    session_service_pb2.SCOPE_LOCAL: "local",
    session_service_pb2.SCOPE_GLOBAL: "global",
}
_TRANSFERS: Mapping[int, str] = {
    session_service_pb2.TRANSFER_PULL: "pull",
    session_service_pb2.TRANSFER_COLLECTIVE: "collective",
}
_HELD_STATES: Mapping[int, HeldState] = {
    switch_pb2.HELD_STATE_ACCEPTED: HeldState.ACCEPTED,
    switch_pb2.HELD_STATE_PREPARED: HeldState.PREPARED,
    switch_pb2.HELD_STATE_ARMED: HeldState.ARMED,
    switch_pb2.HELD_STATE_DISCARDING: HeldState.DISCARDING,
}
_HELLO_FIELDS = {
    "phy2log": "hello.placement.phy2log",
    **{
        name: f"hello.topology.{name}"
        for name in ("num_replicas", "num_gpus", "num_nodes", "num_groups")
    },
}


def decode_hello(message: session_service_pb2.Hello) -> JoinRequest:
    """Raises InvalidArgumentError with every field at fault."""
    with named_as(_HELLO_FIELDS):
        _, topology, scope, transfer, gpus, held, in_force, _, _ = gather(
            lambda: _require_names(message),
            lambda: decode_topology(message.topology),
            lambda: _one_of(_SCOPES, message.scope, "hello.scope"),
            lambda: _one_of(_TRANSFERS, message.transfer, "hello.transfer"),
            lambda: _gpus(message),
            lambda: _held(message),
            lambda: _in_force(message),
            lambda: _require_numbers(message),
            lambda: require(
                message.staging_slots >= 1, "hello.staging_slots", "0 is below 1: no room to switch"
            ),
        )
        placement = _placement(message, topology)
    layers = len(placement.phy2log)
    spec = DeploymentSpec(
        topology,
        layers,
        message.num_experts,
        scope,
        transfer,
        message.bytes_per_expert,
        message.model,
        message.first_layer,
    )
    hello = Hello(
        message.group_id,
        message.worker,
        message.incarnation,
        message.stream,
        gpus,
        placement,
        in_force,
        held,
        message.flipped_at if message.HasField("flipped_at") else None,
        message.term,
        message.epoch,
        message.generation,
    )
    return JoinRequest(
        message.deployment, spec, hello, message.staging_slots, message.max_layers_per_switch
    )


def decode_report(message: session_service_pb2.Report) -> Report:
    """Numbers and steps may be any that come after the last: those between were lost.

    Raises:
        InvalidArgumentError: with the field at fault.
    """
    require(message.seq >= 1, "report.seq", "0 is below 1")
    require(message.HasField("counts"), "report.counts", "is required")
    counts_LE = decode_tensor(message.counts, "report.counts")
    kind = counts_LE.dtype
    require(kind == np.int64, "report.counts.data_type", f"{kind} is not int64")
    first, last = message.first_step, message.last_step
    steps = f"{first} is after {last + 1}, the step that follows last_step"
    require(first <= last + 1, "report.first_step", steps)
    # In floating point, where a sum cannot wrap around to fit.
    total = counts_LE.sum(dtype=np.float64)
    require(total < _MOST_TOKENS, "report.counts", f"{total:.3g} tokens are more than can be")
    return Report(message.seq, message.first_step, message.last_step, counts_LE, message.discard)


def decode_answer(message: session_service_pb2.SessionRequest) -> Answer:
    """Raises InvalidArgumentError where it is none."""
    kind = message.WhichOneof("message")
    if kind not in _ANSWERS:
        raise invalid("message", f"{kind} is nothing that may be said here")
    answer = getattr(message, kind)
    require(answer.HasField("version"), f"{kind}.version", "is required")
    return _ANSWERS[kind](answer, _version(answer.version, f"{kind}.version"))


_ANSWERS: Mapping[str | None, Callable[[Any, Version], Answer]] = {
    "accepted": lambda said, version: Accepted(version, said.digest),
    "prepared": lambda said, version: Prepared(version, said.digest),
    "refused": lambda said, version: Refused(version, said.digest, said.reason[:_MOST_TEXT]),
    "discarded": lambda said, version: Discarded(version),
    "applied": lambda said, version: Applied(version, said.digest, said.step),
}


def _require_names(message: session_service_pb2.Hello) -> None:
    names = ((name, getattr(message, name)) for name in ("deployment", "group_id", "worker"))
    require_all(
        *(
            (0 < len(text) <= 200, f"hello.{name}", f"{text[:40]!r} has not 1 to 200 characters")
            for name, text in names
        ),
        (
            len(message.model) <= 200,
            "hello.model",
            f"its length, {len(message.model)} characters, is not at most 200",
        ),
        (message.stream >= 1, "hello.stream", "0 is below 1"),
    )


def _require_numbers(message: session_service_pb2.Hello) -> None:
    """What the server goes on from: one that nothing fits above would be its last."""
    require_all(
        *(
            (
                (value := getattr(message, name)) < _MOST_NUMBER,
                f"hello.{name}",
                f"{value} is more than there can have been",
            )
            for name in ("term", "epoch", "generation")
        )
    )


def _gpus(message: session_service_pb2.Hello) -> tuple[int, ...]:
    gpus, most = tuple(message.gpus), message.topology.num_gpus
    shown = f"[{', '.join(map(str, gpus[:_MOST_SHOWN]))}{', …' if len(gpus) > _MOST_SHOWN else ''}]"
    rising = all(a < b for a, b in pairwise(gpus))
    require_all(
        (len(gpus) > 0, "hello.gpus", "is empty"),
        (rising, "hello.gpus", f"{shown} does not rise"),
        (not gpus or gpus[-1] < most, "hello.gpus", f"{shown} is not below num_gpus = {most}"),
    )
    return gpus


def _held(message: session_service_pb2.Hello) -> Held | None:
    if not message.HasField("held"):
        return None
    state = _one_of(_HELD_STATES, message.held.state, "hello.held.state")
    return Held(_version(message.held.version, "hello.held.version"), state)


def _in_force(message: session_service_pb2.Hello) -> Version | None:
    return _version(message.in_force, "hello.in_force") if message.HasField("in_force") else None


def _placement(message: session_service_pb2.Hello, topology: Topology) -> Placement:
    require(message.placement.HasField("phy2log"), "hello.placement", "is required")
    phy2log_LR = decode_tensor(message.placement.phy2log, "hello.placement.phy2log")
    shape = list(phy2log_LR.shape)
    require(
        shape[1] == topology.num_replicas,
        "hello.placement.phy2log.shape",
        f"{shape}: has not num_replicas = {topology.num_replicas} columns",
    )
    topology.check_experts(message.num_experts)
    placement = Placement.of(phy2log_LR, message.num_experts, topology.num_gpus)
    require(
        message.placement.digest == placement.digest,
        "hello.placement.digest",
        f"{message.placement.digest[:32].hex() or 'none'} is not the placement's, "
        f"{placement.digest.hex()}",
    )
    return placement


def _version(message: switch_pb2.Version, field: str) -> Version:
    highest = max(message.epoch, message.generation)
    require(highest < _MOST_NUMBER, field, f"{highest} is more than there can have been")
    return Version(message.epoch, message.generation)


def _one_of(known: Mapping[int, Any], value: int, field: str) -> Any:
    require(value in known, field, f"{value} is not a known one")
    return known[value]
