"""Conversion between the worker's values and the messages of `trimtab.v1alpha1`.

All of it is pure. A message of the server that cannot be read is a ProtocolError.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from trimtab.v1 import tensor_pb2
from trimtab.v1alpha1 import session_service_pb2, switch_pb2
from trimtab_client.exceptions import ProtocolError
from trimtab_client.placement import IntArray
from trimtab_client.tensors import array_of, tensor_message
from trimtab_client.version import Version
from trimtab_client.wire_values import (
    placement_message,
    topology_message,
    version_message,
    version_value,
)
from trimtab_client.worker.counters import Snapshot
from trimtab_client.worker.messages import (
    Abort,
    Accepted,
    Answer,
    Applied,
    Commit,
    Discarded,
    HeldState,
    Hello,
    Prepared,
    Refused,
    Welcome,
)
from trimtab_client.worker.notices import Directive, Drain, ReportAck, UnreadableOffer
from trimtab_client.worker.options import Scope, Transfer, WorkerOptions
from trimtab_client.worker.proposal import Proposal

Request = session_service_pb2.SessionRequest
Response = session_service_pb2.SessionResponse

Said = Directive | ReportAck | Drain | Welcome | Proposal | UnreadableOffer | Commit | Abort
"""What the server may say."""

_HELD = {
    HeldState.ACCEPTED: switch_pb2.HELD_STATE_ACCEPTED,
    HeldState.PREPARED: switch_pb2.HELD_STATE_PREPARED,
    HeldState.ARMED: switch_pb2.HELD_STATE_ARMED,
    HeldState.DISCARDING: switch_pb2.HELD_STATE_DISCARDING,
}
_SCOPES = {
    Scope.SOURCE: session_service_pb2.SCOPE_SOURCE,
    Scope.LOCAL: session_service_pb2.SCOPE_LOCAL,
    Scope.GLOBAL: session_service_pb2.SCOPE_GLOBAL,
}
_TRANSFERS = {
    Transfer.PULL: session_service_pb2.TRANSFER_PULL,
    Transfer.COLLECTIVE: session_service_pb2.TRANSFER_COLLECTIVE,
}
_DIGEST_BYTES = 32


# What the worker says.


def hello_request(hello: Hello, options: WorkerOptions) -> Request:
    """The first message of a stream. `options` say what a Hello does not know."""
    held = hello.held
    return Request(
        hello=session_service_pb2.Hello(
            deployment=options.deployment,
            group_id=hello.group_id,
            worker=hello.worker,
            incarnation=hello.incarnation,
            stream=hello.stream,
            gpus=hello.gpus,
            topology=topology_message(options.topology),
            num_experts=options.num_experts,
            placement=placement_message(hello.placement, "placement"),
            in_force=None if hello.in_force is None else version_message(hello.in_force),
            flipped_at=hello.flipped_at,
            held=None
            if held is None
            else switch_pb2.Held(version=version_message(held.version), state=_HELD[held.state]),
            scope=_SCOPES[options.scope],
            transfer=_TRANSFERS[options.transfer],
            staging_slots=options.staging_slots,
            max_layers_per_switch=options.max_layers_per_switch,
            bytes_per_expert=options.bytes_per_expert,
            term=hello.term,
            epoch=hello.epoch,
            generation=hello.generation,
            model=options.model,
            first_layer=options.first_layer,
        )
    )


def answer_request(answer: Answer) -> Request:
    """The message that carries an answer."""
    version = version_message(answer.version)
    match answer:
        case Accepted(digest=digest):
            return Request(accepted=switch_pb2.Accepted(version=version, digest=digest))
        case Prepared(digest=digest):
            return Request(prepared=switch_pb2.Prepared(version=version, digest=digest))
        case Refused(digest=digest, reason=why):
            return Request(refused=switch_pb2.Refused(version=version, digest=digest, reason=why))
        case Discarded():
            return Request(discarded=switch_pb2.Discarded(version=version))
        case Applied(digest=digest, step=step):
            return Request(applied=switch_pb2.Applied(version=version, digest=digest, step=step))


def report_request(snapshot: Snapshot) -> Request:
    """The message that carries counts."""
    return Request(
        report=session_service_pb2.Report(
            seq=snapshot.seq,
            first_step=snapshot.first_step,
            last_step=snapshot.last_step,
            counts=tensor_message(snapshot.counts_LE),
            discard=snapshot.discard,
        )
    )


def goodbye_request(reason: str) -> Request:
    """The last message of a worker that ends on purpose."""
    return Request(goodbye=session_service_pb2.Goodbye(reason=reason))


# What the server says.


def said(response: Response) -> Said:
    """What a message of the server says.

    Raises:
        ProtocolError: it cannot be read.
    """
    kind = response.WhichOneof("message")
    match kind:
        case "directive":
            return _directive(response.directive)
        case "report_ack":
            return ReportAck(response.report_ack.seq)
        case "drain":
            return Drain(_seconds(response.drain.seconds, "drain.seconds"))
        case "welcome":
            return Welcome(*_named(response.welcome, kind))
        case "offer":
            return _offer(response.offer)
        case "commit":
            return Commit(*_named(response.commit, kind))
        case "abort":
            return Abort(_version(response.abort, "version", kind))
    raise ProtocolError("the server sent a message that this client does not know")


def _directive(message: session_service_pb2.Directive) -> Directive:
    interval = _seconds(message.report_interval_seconds, "directive.report_interval_seconds")
    if interval == 0:
        raise ProtocolError("directive.report_interval_seconds: it is 0")
    return Directive(interval, _seconds(message.lease_seconds, "directive.lease_seconds"))


def _offer(message: switch_pb2.Offer) -> Proposal | UnreadableOffer:
    version, digest = _named(message, "offer")
    try:
        return _proposal(message, version, digest)
    except ProtocolError as error:
        return UnreadableOffer(version, digest, str(error))


def _proposal(message: switch_pb2.Offer, version: Version, digest: bytes) -> Proposal:
    return Proposal(
        version=version,
        digest=digest,
        base=_version(message, "base", "offer"),
        base_digest=message.base_digest,
        layers=_indices(message, "layers", rank=1),
        old_rows=_indices(message, "old_rows", rank=2),
        new_rows=_indices(message, "new_rows", rank=2),
        receives=_rows(message, "receives", 3),
        receive_sources=_rows(message, "receive_sources", None),
        sends=_rows(message, "sends", 4),
        copies=_rows(message, "copies", 4),
        bytes_received=message.bytes,
    )


def _named(message: Any, kind: str) -> tuple[Version, bytes]:
    """The version and the digest that a message names."""
    if len(message.digest) != _DIGEST_BYTES:
        raise ProtocolError(f"{kind}.digest: {len(message.digest)} bytes are not {_DIGEST_BYTES}")
    return _version(message, "version", kind), message.digest


def _version(message: Any, field: str, kind: str) -> Version:
    version = version_value(message, field)
    if version is None:
        raise ProtocolError(f"{kind}.{field}: it is not set")
    return version


def _rows(message: switch_pb2.Offer, field: str, columns: int | None) -> IntArray:
    """int32 [M, columns], and none where the field is not set."""
    if not message.HasField(field):
        return np.empty((0, columns or 0), np.int32)
    rows = _indices(message, field, rank=2)
    if columns is not None and rows.shape[1] != columns:
        raise ProtocolError(f"{field}: shape {list(rows.shape)} is not [M, {columns}]")
    return rows


def _indices(message: switch_pb2.Offer, field: str, rank: int) -> IntArray:
    tensor = getattr(message, field)
    if tensor.data_type != tensor_pb2.DATA_TYPE_INT32:
        raise ProtocolError(f"{field}: data type {tensor.data_type} is not INT32")
    shape = list(tensor.shape)
    if len(shape) != rank:
        raise ProtocolError(f"{field}: shape {shape} is not of rank {rank}")
    if min(shape) < 1:
        raise ProtocolError(f"{field}: shape {shape} has a size below 1")
    array: IntArray = array_of(tensor)
    array.setflags(write=False)
    return array


def _seconds(value: float, field: str) -> float:
    if not 0 <= value < math.inf:
        raise ProtocolError(f"{field}: {value} is not a number of seconds")
    return value
