"""Converts errors to gRPC statuses, for whole calls and for single loads of a stream."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

from trimtab.v1 import error_pb2
from trimtab_server.domain import errors
from trimtab_server.domain.errors import InvalidArgumentError, TrimtabError

CODES: Mapping[type[TrimtabError], grpc.StatusCode] = {
    TrimtabError: grpc.StatusCode.INTERNAL,
    InvalidArgumentError: grpc.StatusCode.INVALID_ARGUMENT,
    errors.NotFoundError: grpc.StatusCode.NOT_FOUND,
    errors.AlreadyExistsError: grpc.StatusCode.ALREADY_EXISTS,
    errors.FailedPreconditionError: grpc.StatusCode.FAILED_PRECONDITION,
    errors.SessionClosedError: grpc.StatusCode.ABORTED,
    errors.ResourceExhaustedError: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.UnavailableError: grpc.StatusCode.UNAVAILABLE,
    errors.DeadlineExceededError: grpc.StatusCode.DEADLINE_EXCEEDED,
}
"""The status code of each class of error."""

_MAX_CHARACTERS = 2000
"""Maximum length of a message. gRPC drops trailers, which also hold the details, above 8 KB."""

_DETAILS_KEY = "grpc-status-details-bin"


class Status(NamedTuple):
    """The status of a failed call."""

    code: grpc.StatusCode
    message: str
    trailing_metadata: tuple[tuple[str, bytes], ...]


def status_of(error: TrimtabError) -> Status:
    """The status of a call that fails as a whole, with google.rpc details."""
    code = _code_of(error)
    message = str(error)[:_MAX_CHARACTERS]
    rich = status_pb2.Status(code=code.value[0], message=message)
    rich.details.extend(_packed(_details(error)))
    return Status(code, message, ((_DETAILS_KEY, rich.SerializeToString()),))


def stream_error(error: TrimtabError) -> error_pb2.Error:
    """The error that answers one message of a stream. The stream goes on."""
    violations = error.violations if isinstance(error, InvalidArgumentError) else ()
    delay = _retry_after(error)
    return error_pb2.Error(
        code=_code_of(error).value[0],
        message=str(error),
        field_violations=[
            error_pb2.FieldViolation(field=v.field, description=v.description) for v in violations
        ],
        retry_delay=None if delay is None else _duration(delay),
    )


def _code_of(error: TrimtabError) -> grpc.StatusCode:
    """The code of the nearest base class that has one. Errors of the store have no own code."""
    return next(CODES[kind] for kind in type(error).__mro__ if kind in CODES)


def _details(error: TrimtabError) -> Iterable[Message]:
    if isinstance(error, InvalidArgumentError):
        bad = error_details_pb2.BadRequest
        yield bad(
            field_violations=[
                bad.FieldViolation(field=v.field, description=v.description)
                for v in error.violations
            ]
        )
    delay = _retry_after(error)
    if delay is not None:
        yield error_details_pb2.RetryInfo(retry_delay=_duration(delay))


def _retry_after(error: TrimtabError) -> float | None:
    if isinstance(error, errors.ResourceExhaustedError | errors.UnavailableError):
        return error.retry_after
    return None


def _packed(details: Iterable[Message]) -> Iterable[AnyMessage]:
    for detail in details:
        wrapped = AnyMessage()
        wrapped.Pack(detail)
        yield wrapped


def _duration(seconds: float) -> Duration:
    duration = Duration()
    duration.FromMilliseconds(math.ceil(seconds * 1000))
    return duration
