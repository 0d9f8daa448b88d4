"""Converts the gRPC status of a failed call, with its details, to an exception."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import grpc
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import DecodeError
from grpc import StatusCode

from trimtab.v1 import error_pb2
from trimtab.wire.v1 import standard_pb2
from trimtab_client import exceptions as errors
from trimtab_client.exceptions import FieldViolation, TrimtabError

_DETAILS_KEY = "grpc-status-details-bin"

_CLOSED = "The client was closed or the server stopped."
_NO_SERVER = "Check the address, and that a server runs there and is ready."
_BUSY = "Wait and try again."
_CREDENTIALS = "Check the TLS options and what the server asks for."
_SERVER_BUG = "The server's log says more."
_WRONG_SERVER = "Check that a Trimtab server of this client's version runs there."


class Advice(NamedTuple):
    """What the user should do about errors that depend on what was asked for.

    Attributes:
        too_slow: if the timeout ran out.
        too_much: if a limit was reached, and waiting does not help.
    """

    too_slow: str = "Give a longer timeout."
    too_much: str = "Ask the server's operator for higher limits."


CALL = Advice()
SOLVING = Advice(
    "Give a longer timeout, or ask for less effort.",
    "Send less at once, or ask the server's operator for higher limits.",
)
WATCHING = Advice("The watch has lasted as long as its timeout: give a longer one, or none.")
SWITCHING = Advice("The switch may have begun all the same: look before you ask again.")

_ERRORS: dict[StatusCode, tuple[type[TrimtabError], str]] = {
    StatusCode.CANCELLED: (errors.CallCancelledError, _CLOSED),
    StatusCode.INVALID_ARGUMENT: (errors.InvalidArgumentError, ""),
    StatusCode.DEADLINE_EXCEEDED: (errors.DeadlineExceededError, ""),
    StatusCode.NOT_FOUND: (errors.NotFoundError, ""),
    StatusCode.ALREADY_EXISTS: (errors.AlreadyExistsError, ""),
    StatusCode.PERMISSION_DENIED: (errors.AccessDeniedError, _CREDENTIALS),
    StatusCode.RESOURCE_EXHAUSTED: (errors.ResourceExhaustedError, ""),
    StatusCode.FAILED_PRECONDITION: (errors.FailedPreconditionError, ""),
    StatusCode.ABORTED: (errors.AbortedError, ""),
    StatusCode.OUT_OF_RANGE: (errors.InvalidArgumentError, ""),
    StatusCode.UNIMPLEMENTED: (errors.UnimplementedError, _WRONG_SERVER),
    StatusCode.UNAVAILABLE: (errors.UnavailableError, _NO_SERVER),
    StatusCode.UNAUTHENTICATED: (errors.AccessDeniedError, _CREDENTIALS),
}
"""The class of the error of a status code, and what the user should do if that is always the same;
for other codes the server failed."""

_CODES: dict[int, StatusCode] = {code.value[0]: code for code in StatusCode}


def error_of_call(failure: grpc.RpcError, advice: Advice = CALL) -> TrimtabError:
    """The exception for a call that failed as a whole."""
    status: Any = None
    metadata: Iterable[Any] = failure.trailing_metadata() or ()
    for key, value in metadata:
        if key == _DETAILS_KEY and isinstance(value, bytes):
            # A proxy may have truncated it; code and text are still right.
            status = _parsed(standard_pb2.Status, value)
    bad_request = _detail(status, standard_pb2.BadRequest)
    retry_info = _detail(status, standard_pb2.RetryInfo)
    violations = bad_request.field_violations if bad_request else ()
    delay = retry_info.retry_delay if retry_info else None
    return _error(failure.code(), failure.details() or "", violations, delay, advice)


def error_of_message(message: error_pb2.Error) -> TrimtabError:
    """The exception for an error that came as a message of a stream of loads."""
    code = _CODES.get(message.code, StatusCode.UNKNOWN)
    delay = message.retry_delay if message.HasField("retry_delay") else None
    return _error(code, message.message, message.field_violations, delay, SOLVING)


def _error(
    code: StatusCode,
    details: str,
    violations: Iterable[Any],
    delay: Duration | None,
    advice: Advice,
) -> TrimtabError:
    retry_after = None if delay is None else delay.seconds + delay.nanos / 1e9
    error_class, usual = _ERRORS.get(code, (errors.InternalError, _SERVER_BUG))
    of_this_call = {
        StatusCode.DEADLINE_EXCEEDED: advice.too_slow,
        StatusCode.RESOURCE_EXHAUSTED: advice.too_much,
    }
    todo = of_this_call.get(code, usual) if retry_after is None else _BUSY
    message = " ".join(filter(None, [details or code.name, todo and f"({todo})"]))
    common: dict[str, Any] = {"details": details, "code": code}
    if issubclass(error_class, errors.InvalidArgumentError):
        common["field_violations"] = [FieldViolation(v.field, v.description) for v in violations]
    if issubclass(error_class, errors.ResourceExhaustedError | errors.UnavailableError):
        common["retry_after"] = retry_after
    return error_class(message, **common)


def _detail(status: Any, kind: Any) -> Any:
    """The detail of this type; None if there is none that can be read."""
    # `Any.Unpack` compares full names, and ours differ from the originals' by their package.
    type_name = f"google.rpc.{kind.DESCRIPTOR.name}"
    for detail in () if status is None else status.details:
        if detail.type_url.rpartition("/")[2] == type_name:
            return _parsed(kind, detail.value)
    return None


def _parsed(kind: Any, data: bytes) -> Any:
    try:
        return kind.FromString(data)
    except DecodeError:
        return None
