"""What a worker says in a session, as messages and back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from itertools import pairwise
from typing import Any, get_args

import numpy as np

from trimtab.v1 import topology_pb2
from trimtab.v1alpha1 import session_service_pb2 as pb
from trimtab.v1alpha1 import switch_pb2
from trimtab_protocol import messages
from trimtab_protocol.errors import MalformedError, gather, malformed, require, require_all
from trimtab_protocol.messages import MAX_TOKENS, Answer, Held, Hello, Refused, Report, WorkerSetup
from trimtab_protocol.placement import Placement
from trimtab_protocol.version import MAX_NUMBER
from trimtab_protocol.wire import values
from trimtab_protocol.wire.tensors import decode_tensor, encode_tensor
from trimtab_protocol.wire.values import decode_field_version, encode_version

Request = pb.SessionRequest

MAX_NAME = 200
"""Characters of a name."""

MAX_REASON = 1000
"""Characters of a reason that are kept."""

_MAX_SHOWN = 8

_SCOPES = values.numbers_of(messages.Scope, pb.Scope, "SCOPE")
_TRANSFERS = values.numbers_of(messages.Transfer, pb.Transfer, "TRANSFER")
_STATES = values.numbers_of(messages.HeldState, switch_pb2.HeldState, "HELD_STATE")
_ANSWERS: Mapping[Any, Callable[..., Answer]] = {
    kind.__name__.lower(): kind for kind in get_args(Answer)
}
"""The answers by the names of the fields that carry them."""


def encode_hello(hello: Hello, setup: WorkerSetup) -> Request:
    """The first message of a session."""
    held, in_force = None, hello.in_force
    if hello.held is not None:
        version, state = encode_version(hello.held.version), _STATES[hello.held.state]
        held = switch_pb2.Held(version=version, state=state)
    converted = {
        "topology": topology_pb2.Topology(**vars(setup.topology)),
        "placement": values.encode_placement(hello.placement),
        "in_force": None if in_force is None else encode_version(in_force),
        "held": held,
        "scope": _SCOPES[setup.scope],
        "transfer": _TRANSFERS[setup.transfer],
    }
    return Request(hello=pb.Hello(**{**vars(hello), **setup._asdict(), **converted}))


def decode_hello(message: pb.Hello) -> tuple[Hello, WorkerSetup]:
    """What the first message of a session says.

    Whether the sizes of the topology fit each other is for the caller to check.
    """
    version_in_force = partial(values.decode_version, field="hello.in_force")
    _, scope, transfer, gpus, held, in_force, placement = gather(
        lambda: _require_names_and_numbers(message),
        lambda: _one_of(_SCOPES, message.scope, "hello.scope"),
        lambda: _one_of(_TRANSFERS, message.transfer, "hello.transfer"),
        lambda: _gpus(message),
        lambda: values.optional(message, "held", _held),
        lambda: values.optional(message, "in_force", version_in_force),
        lambda: decode_placement(message, "hello."),
    )
    topology = values.decode_topology(message.topology)
    setup = values.value_of(WorkerSetup, message, topology=topology, scope=scope, transfer=transfer)
    hello = values.value_of(
        Hello, message, gpus=gpus, placement=placement, in_force=in_force, held=held
    )
    return hello, setup


def _require_names_and_numbers(message: pb.Hello) -> None:
    names = ((name, getattr(message, name)) for name in ("deployment", "group_id", "worker"))
    numbers = ((name, getattr(message, name)) for name in ("term", "epoch", "generation"))
    length, bounds = len(message.model), f"does not have 1 to {MAX_NAME} characters"
    require_all(
        *(
            (0 < len(text) <= MAX_NAME, f"hello.{name}", f"{text[:40]!r} {bounds}")
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


def _held(said: switch_pb2.Held) -> Held:
    state = _one_of(_STATES, said.state, "hello.held.state")
    return Held(values.decode_version(said.version, "hello.held.version"), state)


def decode_placement(message: Any, prefix: str) -> Placement:
    """The placement in force in a message that has a topology and `num_experts` as well.

    `prefix` is the path of the message, for errors: empty, or with a dot at its end.
    """
    path, said = f"{prefix}placement", message.placement
    require(said.HasField("phy2log"), path, "is required")
    phy2log_LR = decode_tensor(said.phy2log, f"{path}.phy2log", rank=2)
    slots, shape = message.topology.num_replicas, list(phy2log_LR.shape)
    columns = f"{shape}: has not num_replicas = {slots} columns"
    require(shape[1] == slots, f"{path}.phy2log.shape", columns)
    try:
        placement = Placement.of(phy2log_LR, message.num_experts, message.topology.num_gpus)
    except MalformedError as error:
        paths = {"num_gpus": f"{prefix}topology.num_gpus"}
        renamed = (
            v._replace(field=paths.get(v.field, f"{path}.{v.field}")) for v in error.violations
        )
        raise MalformedError(*renamed) from error
    digests = f"{said.digest[:32].hex() or 'none'} is not the placement's, {placement.digest.hex()}"
    require(said.digest == placement.digest, f"{path}.digest", digests)
    return placement


def _one_of(known: Mapping[Any, Any], value: int, field: str) -> Any:
    for member, number in known.items():
        if number == value:
            return member
    raise malformed(field, f"{value} is not a known value")


def encode_report(report: Report) -> Request:
    """The message that carries counts."""
    said = report._asdict()
    counts = encode_tensor(said.pop("counts_LE"))
    return Request(report=pb.Report(**said, counts=counts))


def decode_report(message: pb.Report) -> Report:
    """What a report says. Its number and steps may be any that come after the last ones."""
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


def encode_answer(answer: Answer) -> Request:
    """The message that carries an answer."""
    said = {**vars(answer), "version": encode_version(answer.version)}
    return Request(**{type(answer).__name__.lower(): said})


def decode_answer(request: Request) -> Answer:
    """The answer in a message, which has to name a version."""
    kind = request.WhichOneof("message")
    if kind not in _ANSWERS:
        raise malformed("message", f"{kind} may not be sent here")
    said = getattr(request, kind)
    version = decode_field_version(said, "version", kind)
    answer = values.value_of(_ANSWERS[kind], said, version=version)
    if isinstance(answer, Refused):
        return replace(answer, reason=answer.reason[:MAX_REASON])
    return answer


def encode_goodbye(reason: str) -> Request:
    """The last message of a worker that ends its session on purpose. Servers do not read why."""
    return Request(goodbye=pb.Goodbye(reason=reason))
