"""Every error that the client raises on purpose.

TrimtabError
├── InvalidArgumentError, also a ValueError: field_violations
├── ResourceExhaustedError, UnavailableError: retry_after
├── DeadlineExceededError, also a TimeoutError
├── NotFoundError, AlreadyExistsError, FailedPreconditionError, AbortedError, AccessDeniedError
└── CallCancelledError, ClientClosedError, UnimplementedError, InternalError, ProtocolError
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from grpc import StatusCode

from trimtab_protocol.errors import MalformedError, Violation

FieldViolation = Violation
"""One field of a request that broke a rule."""


class TrimtabError(Exception):
    """Base of all errors. The message says what happened and what to do next.

    Attributes:
        code: the gRPC status code; for errors raised locally, the closest one.
        details: what happened, in the server's words if they come from the server.
    """

    default_code: ClassVar[StatusCode] = StatusCode.UNKNOWN

    def __init_subclass__(cls, code: StatusCode | None = None) -> None:
        cls.default_code = code or cls.default_code

    def __init__(
        self, message: str, *, details: str | None = None, code: StatusCode | None = None
    ) -> None:
        super().__init__(message)
        self.details = message if details is None else details
        self.code = code or self.default_code


class InvalidArgumentError(TrimtabError, ValueError, code=StatusCode.INVALID_ARGUMENT):
    """The request breaks a rule. It was refused locally or by the server.

    Attributes:
        field_violations: a `FieldViolation(field, description)` for each wrong field, in a tuple.
    """

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


class NotFoundError(TrimtabError, code=StatusCode.NOT_FOUND):
    """There is no such deployment, or it has no such version: `details` says which."""


class AlreadyExistsError(TrimtabError, code=StatusCode.ALREADY_EXISTS):
    """Another deployment has that name already: `details` says how it differs."""


class FailedPreconditionError(TrimtabError, code=StatusCode.FAILED_PRECONDITION):
    """The request is right, but the current state forbids it: `details` says why.

    Examples are a `trigger` while a switch is open or the deployment is paused, or a worker that
    does not fit its deployment. It may pass, or a person has to change something first.
    """


class AbortedError(TrimtabError, code=StatusCode.ABORTED):
    """The server ended what it had begun, for a reason that may pass: `details` says which.

    An example is the session of a worker that has been silent for too long.
    """


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


class ResourceExhaustedError(_RetryableError, code=StatusCode.RESOURCE_EXHAUSTED):
    """A limit was reached: of the queue, of a message's size, of calls, sessions or deployments.

    Attributes:
        retry_after: minimum wait before another attempt, in seconds; None if waiting does not help.
    """


class UnavailableError(_RetryableError, code=StatusCode.UNAVAILABLE):
    """No server answers, it is warming up or draining, or its store failed.

    A call that is not idempotent may have taken effect, as after a DeadlineExceededError.

    Attributes:
        retry_after: minimum wait before another attempt, in seconds; None if the server named none.
    """


class DeadlineExceededError(TrimtabError, TimeoutError, code=StatusCode.DEADLINE_EXCEEDED):
    """The timeout ran out, retries included."""


class CallCancelledError(TrimtabError, code=StatusCode.CANCELLED):
    """The call was cancelled before it ended: the client was closed, or the server stopped."""


class AccessDeniedError(TrimtabError, code=StatusCode.PERMISSION_DENIED):
    """The server wants other credentials: UNAUTHENTICATED or PERMISSION_DENIED."""


class UnimplementedError(TrimtabError, code=StatusCode.UNIMPLEMENTED):
    """The server does not offer this call: it has another version, or is no Trimtab server."""


class InternalError(TrimtabError, code=StatusCode.INTERNAL):
    """The server failed in a way that the request cannot explain."""


class ProtocolError(TrimtabError, code=StatusCode.DATA_LOSS):
    """The server's answer breaks the contract, such as a placement with a wrong digest."""


class ClientClosedError(TrimtabError, code=StatusCode.CANCELLED):
    """The client was used after `close`."""


def invalid(field: str, description: str) -> InvalidArgumentError:
    """An InvalidArgumentError for one field, raised before anything is sent."""
    violation = FieldViolation(field, description)
    return InvalidArgumentError(f"{field}: {description}", field_violations=[violation])


def invalid_as(error: MalformedError) -> InvalidArgumentError:
    """An InvalidArgumentError with the violations of another package's error."""
    return InvalidArgumentError(str(error), field_violations=error.violations)
