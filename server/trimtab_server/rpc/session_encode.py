"""What the server says on a session, as messages. Pure."""

from __future__ import annotations

from typing import Any

from trimtab.v1 import tensor_pb2
from trimtab.v1alpha1 import session_service_pb2, switch_pb2
from trimtab_server.domain.version import Version
from trimtab_server.rollout.contents import Contents
from trimtab_server.rollout.messages import Abort, Commit, Offer, Welcome
from trimtab_server.rpc.tensors import encode_tensor

Response = session_service_pb2.SessionResponse


def encode_order(term: int, order: Welcome | Commit | Abort) -> Response:
    """All orders but offers, which say something else to each worker."""
    version = _version(order.version)
    match order:
        case Welcome():
            return Response(
                term=term, welcome=switch_pb2.Welcome(version=version, digest=order.digest)
            )
        case Commit():
            return Response(
                term=term, commit=switch_pb2.Commit(version=version, digest=order.digest)
            )
        case Abort():
            return Response(term=term, abort=switch_pb2.Abort(version=version))


def encode_offer(term: int, offer: Offer, contents: Contents) -> Response:
    """An offer, with what it asks of one worker."""
    message = switch_pb2.Offer(
        version=_version(offer.version),
        digest=offer.placement.digest,
        base=_version(offer.base),
        base_digest=offer.base_placement.digest,
        layers=_row(contents.layers),
        old_rows=encode_tensor(contents.old_rows, "i4"),
        new_rows=encode_tensor(contents.new_rows, "i4"),
        receives=_table(contents.receives),
        receive_sources=_table(contents.receive_sources),
        sends=_table(contents.sends),
        copies=_table(contents.copies),
        bytes=contents.bytes,
    )
    return Response(term=term, offer=message)


def encode_directive(term: int, report_seconds: float, lease_seconds: float) -> Response:
    """How to report."""
    directive = session_service_pb2.Directive(
        report_interval_seconds=report_seconds, lease_seconds=lease_seconds
    )
    return Response(term=term, directive=directive)


def encode_ack(term: int, seq: int) -> Response:
    """Reports up to this one are counted."""
    return Response(term=term, report_ack=session_service_pb2.ReportAck(seq=seq))


def encode_drain(term: int, seconds: float) -> Response:
    """The server is about to end."""
    return Response(term=term, drain=session_service_pb2.Drain(seconds=seconds))


def _row(values: Any) -> tensor_pb2.Tensor:
    return encode_tensor(values, "i4")


def _table(values: Any) -> tensor_pb2.Tensor | None:
    return encode_tensor(values, "i4") if len(values) else None


def _version(version: Version) -> switch_pb2.Version:
    return switch_pb2.Version(epoch=version.epoch, generation=version.generation)
