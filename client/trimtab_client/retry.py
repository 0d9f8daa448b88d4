"""When a failed call is tried again, and how long it waits before that."""

from __future__ import annotations

import math
import random
import time
from dataclasses import dataclass

import grpc

from trimtab_client.checks import integer, real
from trimtab_client.exceptions import (
    ResourceExhaustedError,
    TrimtabError,
    UnavailableError,
    invalid,
)
from trimtab_client.status import error_of_call


@dataclass(frozen=True)
class RetryPolicy:
    """Exponential backoff with full jitter.

    A call is tried again if the server was unavailable, or if it turned the call
    away and said when to come back. No attempt starts after the call's timeout.

    Attributes:
        max_attempts: attempts in all; 1: no retry.
        initial_backoff: longest wait before the second attempt, in seconds.
        max_backoff: longest wait before any attempt, in seconds, unless the server
            asks for a longer one.
        multiplier: what the longest wait grows by from attempt to attempt.

    Raises:
        InvalidArgumentError: a value is no number, or out of its range.
    """

    max_attempts: int = 4
    initial_backoff: float = 0.1
    max_backoff: float = 2.0
    multiplier: float = 2.0

    def __post_init__(self) -> None:
        integer(self.max_attempts, "max_attempts", low=1)
        for name in ("initial_backoff", "max_backoff", "multiplier"):
            real(getattr(self, name), name)
        if not 0 <= self.initial_backoff <= self.max_backoff < math.inf:
            bounds = f"{self.initial_backoff} and {self.max_backoff}"
            raise invalid("initial_backoff", f"{bounds} are not 0 <= initial <= max_backoff < inf")
        if not 1 <= self.multiplier < math.inf:
            raise invalid("multiplier", f"{self.multiplier} is not at least 1")


DEFAULT_RETRY = RetryPolicy()


def retry_delay(
    policy: RetryPolicy, attempt: int, error: TrimtabError, remaining: float, jitter: float
) -> float | None:
    """Seconds to wait before the next attempt; None: the error is final.

    Args:
        policy: the backoff.
        attempt: the attempt that failed, from 1.
        error: what it failed with.
        remaining: seconds until the call's timeout.
        jitter: random number in [0, 1).
    """
    if attempt >= policy.max_attempts or not _may_pass(error):
        return None
    longest = min(policy.max_backoff, policy.initial_backoff * _growth(policy, attempt))
    # The jitter comes on top of the server's wait: all who were turned away at
    # one moment must not return at one moment.
    delay = (getattr(error, "retry_after", None) or 0.0) + jitter * longest
    return delay if delay < remaining else None


def _may_pass(error: TrimtabError) -> bool:
    if isinstance(error, ResourceExhaustedError):
        return error.retry_after is not None
    return isinstance(error, UnavailableError)


def _growth(policy: RetryPolicy, attempt: int) -> float:
    try:
        return policy.multiplier ** (attempt - 1)
    except OverflowError:
        return math.inf


class Deadline:
    """The moment when a call's timeout runs out."""

    def __init__(self, timeout: float) -> None:
        self._end = time.monotonic() + timeout

    def remaining(self) -> float:
        """Seconds left, at least 0; infinite where the call has no limit."""
        return max(0.0, self._end - time.monotonic())


class Attempts:
    """The attempts of one call: how long the next may take, and what a failure means."""

    def __init__(self, policy: RetryPolicy, deadline: Deadline) -> None:
        self._policy = policy
        self._deadline = deadline
        self._failed = 0

    def delay_after(self, failure: grpc.RpcError) -> float:
        """Seconds to wait before the next attempt.

        Raises:
            TrimtabError: there is no next attempt.
        """
        self._failed += 1
        error = error_of_call(failure)
        jitter = random.random()  # noqa: S311 - spreads load, guards nothing
        remaining = self._deadline.remaining()
        delay = retry_delay(self._policy, self._failed, error, remaining, jitter)
        if delay is None:
            raise error from failure
        return delay


def check_timeout(timeout: float) -> float:
    """A timeout in seconds; `math.inf`: no limit.

    Raises:
        InvalidArgumentError: it is no number, or not above 0.
    """
    seconds = real(timeout, "timeout")
    if seconds <= 0:
        raise invalid("timeout", f"{timeout} is not above 0 seconds (math.inf: no limit)")
    return seconds


def grpc_timeout(seconds: float) -> float | None:
    """A timeout as gRPC wants it: None where there is no limit."""
    return None if math.isinf(seconds) else seconds
