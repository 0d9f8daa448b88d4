"""What the server says in a session, as messages and back."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from trimtab.v1alpha1 import session_service_pb2 as pb
from trimtab.v1alpha1 import switch_pb2
from trimtab_protocol import messages
from trimtab_protocol.errors import MalformedError, malformed, require
from trimtab_protocol.messages import Offer, ServerMessage, Transfers, UnreadableOffer
from trimtab_protocol.placement import IntArray, read_only
from trimtab_protocol.version import Version
from trimtab_protocol.wire.tensors import decode_tensor, encode_tensor
from trimtab_protocol.wire.values import decode_field_version, encode_version

Response = pb.SessionResponse

DIGEST_BYTES = 32

_ARRAYS = {"layers": 1, "old_rows": 2, "new_rows": 2}
"""Arrays of an offer, with their dimensions."""

_ROWS = {"receives": 3, "receive_sources": None, "sends": 4, "copies": 4}
"""Tables of an offer, with their columns. A table without rows is not set."""


def encode_response(term: int, message: ServerMessage) -> Response:
    """What the server of this term says."""
    match message:
        case messages.Welcome() | messages.Commit() | messages.Abort():
            said = {**vars(message), "version": encode_version(message.version)}
            return Response(term=term, **{type(message).__name__.lower(): said})
        case Offer():
            return Response(term=term, offer=_encode_offer(message))
        case messages.Directive(interval, lease):
            directive = pb.Directive(report_interval_seconds=interval, lease_seconds=lease)
            return Response(term=term, directive=directive)
        case messages.ReportAck(seq):
            return Response(term=term, report_ack=pb.ReportAck(seq=seq))
        case messages.Drain(seconds):
            return Response(term=term, drain=pb.Drain(seconds=seconds))
        case UnreadableOffer():
            raise TypeError("no server says this: it is how a worker reads what it cannot read")


def decode_response(response: Response) -> ServerMessage:
    """What the server says. Offers are answered, so one that cannot be read is UnreadableOffer."""
    kind = response.WhichOneof("message")
    match kind:
        case "directive":
            path, said = "directive", response.directive
            interval = _seconds(said.report_interval_seconds, f"{path}.report_interval_seconds")
            require(interval > 0, f"{path}.report_interval_seconds", "is 0")
            lease = _seconds(said.lease_seconds, f"{path}.lease_seconds")
            return messages.Directive(interval, lease)
        case "report_ack":
            return messages.ReportAck(response.report_ack.seq)
        case "drain":
            return messages.Drain(_seconds(response.drain.seconds, "drain.seconds"))
        case "welcome":
            return messages.Welcome(*_named(response.welcome, kind))
        case "offer":
            return _decode_offer(response.offer)
        case "commit":
            return messages.Commit(*_named(response.commit, kind))
        case "abort":
            return messages.Abort(decode_field_version(response.abort, "version", kind))
    raise malformed("message", "is of a kind that this client does not know")


def _encode_offer(offer: Offer) -> switch_pb2.Offer:
    values = vars(offer.transfers)
    names = [name for name in (*_ARRAYS, *_ROWS) if name in _ARRAYS or len(values[name])]
    return switch_pb2.Offer(
        version=encode_version(offer.version),
        digest=offer.digest,
        base=encode_version(offer.base),
        base_digest=offer.base_digest,
        bytes=offer.transfers.bytes_received,
        **{name: encode_tensor(values[name], "i4") for name in names},
    )


def _decode_offer(message: switch_pb2.Offer) -> Offer | UnreadableOffer:
    version, digest = _named(message, "offer")
    try:
        base = decode_field_version(message, "base", "offer")
        return Offer(version, digest, base, message.base_digest, _decode_transfers(message))
    except MalformedError as error:
        return UnreadableOffer(version, digest, str(error))


def _decode_transfers(message: switch_pb2.Offer) -> Transfers:
    tables = {name: _rows(message, name, columns) for name, columns in _ROWS.items()}
    arrays = {name: _indices(message, name, rank) for name, rank in _ARRAYS.items()}
    return Transfers(**arrays, **tables, bytes_received=message.bytes)


def _rows(message: switch_pb2.Offer, field: str, columns: int | None) -> IntArray:
    """int32 [M, columns], and none where the field is not set."""
    if not message.HasField(field):
        return np.empty((0, columns or 0), np.int32)
    rows = _indices(message, field, rank=2)
    shape = f"{list(rows.shape)} is not [M, {columns}]"
    require(columns in (None, rows.shape[1]), f"offer.{field}.shape", shape)
    return rows


def _indices(message: switch_pb2.Offer, field: str, rank: int) -> IntArray:
    tensor = getattr(message, field)
    return read_only(decode_tensor(tensor, f"offer.{field}", rank=rank, dtype="int32"))


def _named(message: Any, kind: str) -> tuple[Version, bytes]:
    """The version and the digest that a message names."""
    length = len(message.digest)
    require(length == DIGEST_BYTES, f"{kind}.digest", f"{length} bytes are not {DIGEST_BYTES}")
    return decode_field_version(message, "version", kind), message.digest


def _seconds(value: float, field: str) -> float:
    require(0 <= value < math.inf, field, f"{value} is not a number of seconds")
    return value
