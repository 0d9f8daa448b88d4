"""Every error that the client raises on purpose.

TrimtabError                 code, details
├── InvalidArgumentError     the request breaks a rule: field_violations
├── NotFoundError            there is no such deployment, or no such version of it
├── AlreadyExistsError       another deployment has that name
├── FailedPreconditionError  the request is right, but the current state forbids it
├── AbortedError             the server ended what it had begun
├── ResourceExhaustedError   a limit of the server was reached: retry_after
├── UnavailableError         no server answers, or it is warming up or draining: retry_after
├── DeadlineExceededError    the timeout ran out
├── CallCancelledError       the call was cancelled: client closed, or server stopped
├── AccessDeniedError        credentials are missing or were refused
├── UnimplementedError       the server does not offer this call
├── InternalError            the server failed
├── ProtocolError            the server's answer breaks the contract
└── ClientClosedError        the client was used after `close`

InvalidArgumentError is a ValueError and DeadlineExceededError a TimeoutError, so
code that does not know Trimtab can catch them too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from grpc import StatusCode


@dataclass(frozen=True)
class FieldViolation:
    """One field of a request that broke a rule.

    Attributes:
        field: path of the field, such as "topology.num_gpus".
        description: the value seen, and the rule that it breaks.
    """

    field: str
    description: str


class TrimtabError(Exception):
    """Base of all errors. The message says what happened and what to do next.

    Attributes:
        code: the gRPC status code; for errors raised locally, the closest one.
        details: what happened, in the server's words if they come from the server.
    """

    default_code: ClassVar[StatusCode] = StatusCode.UNKNOWN

    def __init__(
        self, message: str, *, details: str | None = None, code: StatusCode | None = None
    ) -> None:
        super().__init__(message)
        self.details = message if details is None else details
        self.code = code or self.default_code


class InvalidArgumentError(TrimtabError, ValueError):
    """The request breaks a rule. It was refused locally or by the server.

    Attributes:
        field_violations: each wrong field; empty if the server named none.
    """

    default_code = StatusCode.INVALID_ARGUMENT

    def __init__(
        self,
        message: str,
        *,
        details: str | None = None,
        code: StatusCode | None = None,
        field_violations: Sequence[FieldViolation] = (),
    ) -> None:
        super().__init__(message, details=details, code=code)
        self.field_violations = tuple(field_violations)


class NotFoundError(TrimtabError):
    """There is no such deployment, or it has no such version: `details` says which."""

    default_code = StatusCode.NOT_FOUND


class AlreadyExistsError(TrimtabError):
    """Another deployment has that name already: `details` says how it differs."""

    default_code = StatusCode.ALREADY_EXISTS


class FailedPreconditionError(TrimtabError):
    """The request is right, but the current state forbids it: `details` says why.

    Examples are a Trigger while a switch is open or the deployment is paused, or a worker that
    does not fit its deployment. The state may pass, or a person has to change something first.
    """

    default_code = StatusCode.FAILED_PRECONDITION


class AbortedError(TrimtabError):
    """The server ended what it had begun, for a reason that may pass: `details` says which.

    An example is the session of a worker that has been silent for too long.
    """

    default_code = StatusCode.ABORTED


class _RetryableError(TrimtabError):
    """An error after which a later attempt may succeed."""

    def __init__(
        self,
        message: str,
        *,
        details: str | None = None,
        code: StatusCode | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message, details=details, code=code)
        self.retry_after = retry_after


class ResourceExhaustedError(_RetryableError):
    """A limit of the server was reached: its queue, or the size of a message or tensor.

    Attributes:
        retry_after: minimum wait before another attempt, in seconds; None if waiting
            does not help.
    """

    default_code = StatusCode.RESOURCE_EXHAUSTED


class UnavailableError(_RetryableError):
    """No server answers at this address, or it is warming up or draining.

    Attributes:
        retry_after: minimum wait before another attempt, in seconds; None if the server
            did not say.
    """

    default_code = StatusCode.UNAVAILABLE


class DeadlineExceededError(TrimtabError, TimeoutError):
    """The timeout ran out, retries included."""

    default_code = StatusCode.DEADLINE_EXCEEDED


class CallCancelledError(TrimtabError):
    """The call was cancelled before it ended: the client was closed, or the server stopped."""

    default_code = StatusCode.CANCELLED


class AccessDeniedError(TrimtabError):
    """The server wants other credentials: UNAUTHENTICATED or PERMISSION_DENIED."""

    default_code = StatusCode.PERMISSION_DENIED


class UnimplementedError(TrimtabError):
    """The server does not offer this call: it has another version, or is no Trimtab server."""

    default_code = StatusCode.UNIMPLEMENTED


class InternalError(TrimtabError):
    """The server failed in a way that the request cannot explain."""

    default_code = StatusCode.INTERNAL


class ProtocolError(TrimtabError):
    """The server's answer breaks the contract, such as a placement with a wrong digest."""

    default_code = StatusCode.DATA_LOSS


class ClientClosedError(TrimtabError):
    """The client was used after `close`."""

    default_code = StatusCode.CANCELLED


def invalid(field: str, description: str) -> InvalidArgumentError:
    """An InvalidArgumentError for one field, raised before anything is sent."""
    violation = FieldViolation(field, description)
    return InvalidArgumentError(f"{field}: {description}", field_violations=[violation])
