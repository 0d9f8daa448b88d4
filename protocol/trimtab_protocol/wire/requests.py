"""What a worker says in a session, as messages and back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Any

import numpy as np

from trimtab.v1 import topology_pb2
from trimtab.v1alpha1 import session_service_pb2 as pb
from trimtab.v1alpha1 import switch_pb2
from trimtab_protocol.errors import MalformedError, Violation, gather, require, require_all
from trimtab_protocol.messages import (
    MAX_TOKENS,
    Accepted,
    Answer,
    Applied,
    Discarded,
    Held,
    HeldState,
    Hello,
    Prepared,
    Refused,
    Report,
    Scope,
    TopologySizes,
    Transfer,
    WorkerSetup,
)
from trimtab_protocol.placement import Placement
from trimtab_protocol.version import MAX_NUMBER, Version
from trimtab_protocol.wire.tensors import decode_tensor, encode_tensor
from trimtab_protocol.wire.values import (
    decode_field_version,
    decode_version,
    encode_placement,
    encode_version,
)

Request = pb.SessionRequest

MAX_NAME = 200
"""Characters of a name."""

MAX_REASON = 1000
"""Characters of a reason that are kept."""

_MAX_SHOWN = 8

_SCOPES: Mapping[Scope, Any] = {scope: pb.Scope.Value(f"SCOPE_{scope.name}") for scope in Scope}
_TRANSFERS: Mapping[Transfer, Any] = {
    transfer: pb.Transfer.Value(f"TRANSFER_{transfer.name}") for transfer in Transfer
}
_STATES: Mapping[HeldState, Any] = {
    state: switch_pb2.HeldState.Value(f"HELD_STATE_{state.name}") for state in HeldState
}


# The first message.


def encode_hello(hello: Hello, setup: WorkerSetup) -> Request:
    """The first message of a session."""
    held, in_force = hello.held, hello.in_force
    message = pb.Hello(
        deployment=setup.deployment,
        group_id=hello.group_id,
        worker=hello.worker,
        incarnation=hello.incarnation,
        stream=hello.stream,
        gpus=hello.gpus,
        topology=topology_pb2.Topology(**setup.topology._asdict()),
        num_experts=setup.num_experts,
        placement=encode_placement(hello.placement),
        in_force=None if in_force is None else encode_version(in_force),
        flipped_at=hello.flipped_at,
        held=None
        if held is None
        else switch_pb2.Held(version=encode_version(held.version), state=_STATES[held.state]),
        scope=_SCOPES[setup.scope],
        transfer=_TRANSFERS[setup.transfer],
        staging_slots=setup.staging_slots,
        max_layers_per_switch=setup.max_layers_per_switch,
        bytes_per_expert=setup.bytes_per_expert,
        term=hello.term,
        epoch=hello.epoch,
        generation=hello.generation,
        model=setup.model,
        first_layer=setup.first_layer,
    )
    return Request(hello=message)


def decode_hello(message: pb.Hello) -> tuple[Hello, WorkerSetup]:
    """What the first message of a session says.

    Raises:
        MalformedError: with every field at fault. Whether the sizes of the topology fit each
            other is for the caller to check.
    """
    _, scope, transfer, gpus, held, in_force, placement = gather(
        lambda: _require_names_and_numbers(message),
        lambda: _one_of(_SCOPES, message.scope, "hello.scope"),
        lambda: _one_of(_TRANSFERS, message.transfer, "hello.transfer"),
        lambda: _gpus(message),
        lambda: _held(message),
        lambda: _optional_version(message, "in_force"),
        lambda: _placement(message),
    )
    sizes = message.topology
    topology = TopologySizes(
        sizes.num_replicas, sizes.num_gpus, sizes.num_nodes or 1, sizes.num_groups or 1
    )
    setup = WorkerSetup(
        message.deployment,
        topology,
        message.num_experts,
        scope,
        transfer,
        message.staging_slots,
        message.max_layers_per_switch,
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
    return hello, setup


def _require_names_and_numbers(message: pb.Hello) -> None:
    names = ((name, getattr(message, name)) for name in ("deployment", "group_id", "worker"))
    numbers = ((name, getattr(message, name)) for name in ("term", "epoch", "generation"))
    length = len(message.model)
    require_all(
        *(
            (
                0 < len(text) <= MAX_NAME,
                f"hello.{name}",
                f"{text[:40]!r} does not have 1 to {MAX_NAME} characters",
            )
            for name, text in names
        ),
        (length <= MAX_NAME, "hello.model", f"{length} characters are more than {MAX_NAME}"),
        (message.stream >= 1, "hello.stream", "0 is below 1"),
        (message.staging_slots >= 1, "hello.staging_slots", "0 is below 1: no room to switch"),
        *(
            (value <= MAX_NUMBER, f"hello.{name}", f"{value} is above {MAX_NUMBER}")
            for name, value in numbers
        ),
    )


def _gpus(message: pb.Hello) -> tuple[int, ...]:
    gpus, count = tuple(message.gpus), message.topology.num_gpus
    shown = f"[{', '.join(map(str, gpus[:_MAX_SHOWN]))}{', …' if len(gpus) > _MAX_SHOWN else ''}]"
    rising = all(a < b for a, b in pairwise(gpus))
    require_all(
        (len(gpus) > 0, "hello.gpus", "is empty"),
        (rising, "hello.gpus", f"{shown} does not rise"),
        (not gpus or gpus[-1] < count, "hello.gpus", f"{shown} is not below num_gpus = {count}"),
    )
    return gpus


def _held(message: pb.Hello) -> Held | None:
    if not message.HasField("held"):
        return None
    state = _one_of(_STATES, message.held.state, "hello.held.state")
    return Held(decode_version(message.held.version, "hello.held.version"), state)


def _optional_version(message: pb.Hello, name: str) -> Version | None:
    return decode_field_version(message, name, "hello") if message.HasField(name) else None


def _placement(message: pb.Hello) -> Placement:
    path, said = "hello.placement", message.placement
    require(said.HasField("phy2log"), path, "is required")
    phy2log_LR = decode_tensor(said.phy2log, f"{path}.phy2log", rank=2)
    slots, shape = message.topology.num_replicas, list(phy2log_LR.shape)
    columns = f"{shape}: has not num_replicas = {slots} columns"
    require(shape[1] == slots, f"{path}.phy2log.shape", columns)
    try:
        placement = Placement.of(phy2log_LR, message.num_experts, message.topology.num_gpus)
    except MalformedError as error:
        renamed = (Violation(_path_of(v.field), v.description) for v in error.violations)
        raise MalformedError(*renamed) from error
    digests = f"{said.digest[:32].hex() or 'none'} is not the placement's, {placement.digest.hex()}"
    require(said.digest == placement.digest, f"{path}.digest", digests)
    return placement


def _path_of(field: str) -> str:
    """The path of an argument of `Placement.of`."""
    return "hello.topology.num_gpus" if field == "num_gpus" else f"hello.placement.{field}"


def _one_of(known: Mapping[Any, Any], value: int, field: str) -> Any:
    for member, number in known.items():
        if number == value:
            return member
    raise MalformedError(Violation(field, f"{value} is not a known value"))


# Reports.


def encode_report(report: Report) -> Request:
    """The message that carries counts."""
    message = pb.Report(
        seq=report.seq,
        first_step=report.first_step,
        last_step=report.last_step,
        counts=encode_tensor(report.counts_LE),
        discard=report.discard,
    )
    return Request(report=message)


def decode_report(message: pb.Report) -> Report:
    """What a report says. Its number and steps may be any that come after the last ones.

    Raises:
        MalformedError: with the field at fault.
    """
    require(message.seq >= 1, "report.seq", "0 is below 1")
    require(message.HasField("counts"), "report.counts", "is required")
    counts_LE = decode_tensor(message.counts, "report.counts", rank=2, dtype="int64")
    first, last = message.first_step, message.last_step
    steps = f"{first} is after {last + 1}, the step that follows last_step"
    require(first <= last + 1, "report.first_step", steps)
    # In floating point, where a sum cannot wrap around to fit.
    total = counts_LE.sum(dtype=np.float64)
    require(total < MAX_TOKENS, "report.counts", f"{total:.3g} tokens are not below {MAX_TOKENS}")
    return Report(message.seq, first, last, counts_LE, message.discard)


# Answers.


def encode_answer(answer: Answer) -> Request:
    """The message that carries an answer."""
    version = encode_version(answer.version)
    match answer:
        case Accepted(digest=digest):
            return Request(accepted=switch_pb2.Accepted(version=version, digest=digest))
        case Prepared(digest=digest):
            return Request(prepared=switch_pb2.Prepared(version=version, digest=digest))
        case Refused(digest=digest, reason=reason):
            refused = switch_pb2.Refused(version=version, digest=digest, reason=reason)
            return Request(refused=refused)
        case Discarded():
            return Request(discarded=switch_pb2.Discarded(version=version))
        case Applied(digest=digest, step=step):
            applied = switch_pb2.Applied(version=version, digest=digest, step=step)
            return Request(applied=applied)


_ANSWERS: Mapping[str | None, Callable[[Any, Version], Answer]] = {
    "accepted": lambda said, version: Accepted(version, said.digest),
    "prepared": lambda said, version: Prepared(version, said.digest),
    "refused": lambda said, version: Refused(version, said.digest, said.reason[:MAX_REASON]),
    "discarded": lambda said, version: Discarded(version),
    "applied": lambda said, version: Applied(version, said.digest, said.step),
}


def decode_answer(request: Request) -> Answer:
    """The answer in a message.

    Raises:
        MalformedError: it holds no answer, or one without a version.
    """
    kind = request.WhichOneof("message")
    if kind not in _ANSWERS:
        raise MalformedError(Violation("message", f"{kind} may not be sent here"))
    said = getattr(request, kind)
    return _ANSWERS[kind](said, decode_field_version(said, "version", kind))


def encode_goodbye(reason: str) -> Request:
    """The last message of a worker that ends its session on purpose. Servers do not read why."""
    return Request(goodbye=pb.Goodbye(reason=reason))
