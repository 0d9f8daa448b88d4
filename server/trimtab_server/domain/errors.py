"""All errors the server raises on purpose.

TrimtabError
├── InvalidArgumentError    the request breaks a rule; names fields and values
├── NotFoundError           what the request names is not there
├── AlreadyExistsError      what it would make is there already, and another
├── FailedPreconditionError the request is right, and the state of things forbids it now
├── SessionClosedError      a session is over, for a reason that may pass: come back
├── ResourceExhaustedError  a limit was hit; `retry_after` where waiting helps
├── UnavailableError        warming up or draining; try again elsewhere or later
└── DeadlineExceededError   the caller's time ran out before the work began
"""

from __future__ import annotations

from operator import index
from typing import Any, SupportsIndex

from trimtab_protocol.errors import Violation


class TrimtabError(Exception):
    """Base of every error raised on purpose."""


class InvalidArgumentError(TrimtabError, ValueError):
    """Input that breaks a rule. The message names the argument, the value and the rule."""

    def __init__(self, *violations: Violation) -> None:
        self.violations = violations
        super().__init__("; ".join(f"{v.field}: {v.description}" for v in violations))


class NotFoundError(TrimtabError):
    """What a request names is not there."""


class AlreadyExistsError(TrimtabError):
    """There is one of that name already, which differs; the message says in what."""


class FailedPreconditionError(TrimtabError):
    """Nothing is wrong with the request, but with the state it finds; the message says what."""


class SessionClosedError(TrimtabError):
    """A session is over, for a reason that may pass; the worker may begin another."""


class ResourceExhaustedError(TrimtabError):
    """A limit was hit. `retry_after` is in seconds; None: waiting does not help."""

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        self.retry_after = retry_after
        super().__init__(message)


class UnavailableError(TrimtabError):
    """The server takes no work now. `retry_after` is in seconds."""

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        self.retry_after = retry_after
        super().__init__(message)


class DeadlineExceededError(TrimtabError):
    """The caller's deadline passed before its work began."""


def invalid(field: str, description: str) -> InvalidArgumentError:
    """An InvalidArgumentError for one argument."""
    return InvalidArgumentError(Violation(field, description))


def require(condition: bool, field: str, description: str) -> None:
    """Raise InvalidArgumentError for `field` unless `condition` holds."""
    if not condition:
        raise invalid(field, description)


def require_all(*rules: tuple[bool, str, str]) -> None:
    """`require` for several (condition, field, description): one error names all that fail."""
    broken = [Violation(field, description) for holds, field, description in rules if not holds]
    if broken:
        raise InvalidArgumentError(*broken)


def require_integers(**values: Any) -> None:
    """Raise InvalidArgumentError for every value, by its name, that is not an integer."""
    require_all(
        *(
            (_is_integer(value), name, f"{value!r} is not an integer")
            for name, value in values.items()
        )
    )


def store_integers(frozen: object, **values: Any) -> None:
    """Check integers of any type, and keep them in a frozen dataclass as Python's own.

    Raises:
        InvalidArgumentError: see `require_integers`.
    """
    require_integers(**values)
    for name, value in values.items():
        object.__setattr__(frozen, name, index(value))


def _is_integer(value: Any) -> bool:
    # Asking for a protocol takes microseconds, and most values are plain.
    return type(value) is int or (isinstance(value, SupportsIndex) and not isinstance(value, bool))
