"""All errors that the server raises on purpose.

TrimtabError
├── InvalidArgumentError    the request breaks a rule; the message names fields and values
├── NotFoundError           the request names something that does not exist
├── AlreadyExistsError      the request would create something that exists and differs
├── FailedPreconditionError the request is valid, but the present state forbids it
├── SessionClosedError      the server closed a session; the worker may open another one
├── ResourceExhaustedError  a limit was reached; `retry_after` is set if waiting helps
├── UnavailableError        the server starts or stops; try again later or elsewhere
└── DeadlineExceededError   the caller's deadline passed before the work began
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from operator import index
from typing import Any, SupportsIndex

from trimtab_protocol.errors import MalformedError


class TrimtabError(Exception):
    """Base of every error raised on purpose."""


class InvalidArgumentError(TrimtabError, MalformedError):
    """Input that breaks a rule. The message names the argument, the value and the rule."""


class NotFoundError(TrimtabError):
    """The request names something that does not exist."""


class AlreadyExistsError(TrimtabError):
    """Something of that name exists and differs; the message says how."""


class FailedPreconditionError(TrimtabError):
    """The request is valid, but the present state forbids it; the message says why."""


class SessionClosedError(TrimtabError):
    """The server closed a session, for a reason that may pass; the worker may open another one."""


class ResourceExhaustedError(TrimtabError):
    """A limit was reached. `retry_after` is in seconds; None if waiting does not help."""

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        self.retry_after = retry_after
        super().__init__(message)


class UnavailableError(TrimtabError):
    """The server accepts no work now. `retry_after` is in seconds."""

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        self.retry_after = retry_after
        super().__init__(message)


class DeadlineExceededError(TrimtabError):
    """The caller's deadline passed before the work began."""


invalid = InvalidArgumentError.of
require = InvalidArgumentError.require
require_all = InvalidArgumentError.require_all


@contextmanager
def malformed_as_invalid() -> Iterator[None]:
    """Raise InvalidArgumentError instead of MalformedError."""
    try:
        yield
    except MalformedError as error:
        raise InvalidArgumentError(*error.violations) from error


def require_integers(**values: Any) -> None:
    """Raise InvalidArgumentError for every value, by its name, that is not an integer."""
    message = "{!r} is not an integer"
    require_all(*((_is_integer(each), name, message.format(each)) for name, each in values.items()))


def store_integers(frozen: object, **values: Any) -> None:
    """Check integers of any type, and store them in a frozen dataclass as Python integers.

    Raises:
        InvalidArgumentError: see `require_integers`.
    """
    require_integers(**values)
    for name, value in values.items():
        object.__setattr__(frozen, name, index(value))


def _is_integer(value: Any) -> bool:
    # Checking a protocol takes microseconds, and most values are plain integers.
    return type(value) is int or (isinstance(value, SupportsIndex) and not isinstance(value, bool))
