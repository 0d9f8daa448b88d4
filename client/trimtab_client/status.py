"""What a failed call means: gRPC status, with its details, to an exception."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import grpc
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import DecodeError
from grpc import StatusCode

from trimtab.v1 import error_pb2
from trimtab.wire.v1 import standard_pb2
from trimtab_client.exceptions import (
    AbortedError,
    AccessDeniedError,
    AlreadyExistsError,
    CallCancelledError,
    DeadlineExceededError,
    FailedPreconditionError,
    FieldViolation,
    InternalError,
    InvalidArgumentError,
    NotFoundError,
    ResourceExhaustedError,
    TrimtabError,
    UnavailableError,
    UnimplementedError,
)

_DETAILS_KEY = "grpc-status-details-bin"
_BAD_REQUEST = "google.rpc.BadRequest"
_RETRY_INFO = "google.rpc.RetryInfo"

_NO_SERVER = "Check the address, and that a server runs there and is ready."
_TOO_SLOW = "Give a longer timeout, or ask for less effort."
_TOO_MUCH = "Send less at once, or ask the server's operator for higher limits."
_BUSY = "Wait and try again."
_CREDENTIALS = "Check the TLS options and what the server asks for."
_SERVER_BUG = "The server's log says more."
_WRONG_SERVER = "Check that a Trimtab server of this client's version runs there."

_MEANING: dict[StatusCode, tuple[type[TrimtabError], str]] = {
    StatusCode.CANCELLED: (CallCancelledError, "The client was closed or the server stopped."),
    StatusCode.UNKNOWN: (InternalError, _SERVER_BUG),
    StatusCode.INVALID_ARGUMENT: (InvalidArgumentError, ""),
    StatusCode.DEADLINE_EXCEEDED: (DeadlineExceededError, _TOO_SLOW),
    StatusCode.NOT_FOUND: (NotFoundError, ""),
    StatusCode.ALREADY_EXISTS: (AlreadyExistsError, ""),
    StatusCode.PERMISSION_DENIED: (AccessDeniedError, _CREDENTIALS),
    StatusCode.RESOURCE_EXHAUSTED: (ResourceExhaustedError, _TOO_MUCH),
    StatusCode.FAILED_PRECONDITION: (FailedPreconditionError, ""),
    StatusCode.ABORTED: (AbortedError, ""),
    StatusCode.OUT_OF_RANGE: (InvalidArgumentError, ""),
    StatusCode.UNIMPLEMENTED: (UnimplementedError, _WRONG_SERVER),
    StatusCode.INTERNAL: (InternalError, _SERVER_BUG),
    StatusCode.UNAVAILABLE: (UnavailableError, _NO_SERVER),
    StatusCode.DATA_LOSS: (InternalError, _SERVER_BUG),
    StatusCode.UNAUTHENTICATED: (AccessDeniedError, _CREDENTIALS),
}
_CODES: dict[int, StatusCode] = {code.value[0]: code for code in StatusCode}


def error_of_call(failure: grpc.RpcError) -> TrimtabError:
    """The exception for a call that failed as a whole."""
    status = _status_details(failure.trailing_metadata())
    return _error(
        failure.code(),
        failure.details() or "",
        _violations(status),
        _retry_after(status),
    )


def error_of_message(message: error_pb2.Error) -> TrimtabError:
    """The exception for an error that came as a message of a stream."""
    return _error(
        _CODES.get(message.code, StatusCode.UNKNOWN),
        message.message,
        [FieldViolation(v.field, v.description) for v in message.field_violations],
        _seconds(message.retry_delay) if message.HasField("retry_delay") else None,
    )


def _error(
    code: StatusCode, details: str, violations: list[FieldViolation], retry_after: float | None
) -> TrimtabError:
    error_class, advice = _MEANING.get(code, (InternalError, _SERVER_BUG))
    if retry_after is not None:
        advice = _BUSY
    message = " ".join(filter(None, [details or code.name, advice and f"({advice})"]))
    common: dict[str, Any] = {"details": details, "code": code}
    if issubclass(error_class, InvalidArgumentError):
        return error_class(message, field_violations=violations, **common)
    if issubclass(error_class, (ResourceExhaustedError, UnavailableError)):
        return error_class(message, retry_after=retry_after, **common)
    return error_class(message, **common)


def _status_details(metadata: Iterable[Any] | None) -> standard_pb2.Status:
    """The google.rpc.Status that rides in trailing metadata; empty where there is none."""
    status = standard_pb2.Status()
    for key, value in metadata or ():
        if key == _DETAILS_KEY and isinstance(value, bytes):
            # A proxy may have cut it; the status itself still tells the story.
            _parse_into(status, value)
    return status


def _violations(status: standard_pb2.Status) -> list[FieldViolation]:
    bad_request = standard_pb2.BadRequest()
    _unpack(status, _BAD_REQUEST, bad_request)
    return [FieldViolation(v.field, v.description) for v in bad_request.field_violations]


def _retry_after(status: standard_pb2.Status) -> float | None:
    retry_info = standard_pb2.RetryInfo()
    found = _unpack(status, _RETRY_INFO, retry_info)
    return _seconds(retry_info.retry_delay) if found else None


def _unpack(status: standard_pb2.Status, type_name: str, into: Any) -> bool:
    # `Any.Unpack` compares full names, and ours differ from the originals'.
    for detail in status.details:
        if detail.type_url.rpartition("/")[2] == type_name:
            return _parse_into(into, detail.value)
    return False


def _parse_into(message: Any, data: bytes) -> bool:
    try:
        message.ParseFromString(data)
    except DecodeError:
        message.Clear()
        return False
    return True


def _seconds(duration: Duration) -> float:
    return duration.seconds + duration.nanos / 1e9
