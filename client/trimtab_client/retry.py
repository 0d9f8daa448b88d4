"""When a failed call is tried again, and how long the client waits before that."""

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
from trimtab_client.status import CALL, Advice, error_of_call


@dataclass(frozen=True)
class RetryPolicy:
    """Exponential backoff with full jitter.

    A call is tried again if the server was unavailable, or if the server turned the call away
    and said when to come back. No attempt starts after the call's timeout.

    Attributes:
        max_attempts: the number of attempts, the first included; 1 for no retry.
        initial_backoff: longest wait before the second attempt, in seconds.
        max_backoff: longest wait before any attempt, in seconds, unless the server
            asks for a longer one.
        multiplier: factor by which the longest wait grows from attempt to attempt.

    Raises:
        InvalidArgumentError: a value is not a number, or out of its range.
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
    """Seconds to wait after an attempt that failed, counted from 1; None if it was the last.

    `remaining` are the seconds until the call's timeout, and `jitter` is a random number in [0, 1).
    """
    asked = getattr(error, "retry_after", None)
    turned_away = isinstance(error, ResourceExhaustedError) and asked is not None
    temporary = turned_away or isinstance(error, UnavailableError)
    if attempt >= policy.max_attempts or not temporary:
        return None
    # The jitter comes on top of the server's wait: callers who were turned away at the same
    # moment must not return at the same moment.
    delay = (asked or 0.0) + jitter * longest_wait(policy, attempt)
    return delay if delay < remaining else None


def longest_wait(policy: RetryPolicy, attempt: int) -> float:
    """Longest wait of the backoff after the failed attempt of this number, in seconds."""
    try:
        growth = float(policy.multiplier) ** (attempt - 1)
    except OverflowError:
        growth = math.inf
    # Without a first wait there is none later: 0 * inf would be no number.
    return min(policy.max_backoff, policy.initial_backoff and policy.initial_backoff * growth)


class Deadline:
    """The moment at which a call's timeout, in seconds, runs out."""

    def __init__(self, timeout: float) -> None:
        self.timeout = timeout
        self._end = time.monotonic() + timeout

    def remaining(self) -> float:
        """Seconds left, at least 0; infinite if the call has no limit."""
        return max(0.0, self._end - time.monotonic())

    def grpc_timeout(self) -> float | None:
        """The same as gRPC wants it: None if the call has no limit."""
        seconds = self.remaining()
        return None if math.isinf(seconds) else seconds


class Attempts:
    """The attempts of one call: how long the next may take, and when it may start.

    A call that is not idempotent is tried again only if the server says when to come back: only
    then is it certain that the server did nothing. A broken connection tells nothing about that.
    """

    def __init__(
        self,
        policy: RetryPolicy,
        deadline: Deadline,
        *,
        idempotent: bool = True,
        advice: Advice = CALL,
    ) -> None:
        self._policy = policy
        self._deadline = deadline
        self._idempotent = idempotent
        self._advice = advice
        self.failed = 0
        self.timeout = deadline.grpc_timeout

    def delay_after(self, failure: grpc.RpcError) -> float:
        """Seconds to wait before the next attempt.

        Raises:
            TrimtabError: there is no next attempt.
        """
        error = error_of_call(failure, self._advice)
        delay = self.delay(error)
        turned_away = getattr(error, "retry_after", None) is not None
        if delay is None or not (self._idempotent or turned_away):
            raise error from failure
        return delay

    def delay(self, error: TrimtabError) -> float | None:
        """Seconds to wait before the next attempt; None if there is none."""
        self.failed += 1
        jitter = random.random()  # noqa: S311 - spreads load, guards nothing
        return retry_delay(self._policy, self.failed, error, self._deadline.remaining(), jitter)


def check_timeout(timeout: float) -> float:
    """The timeout in seconds, a number above 0; `math.inf` for no limit."""
    seconds = real(timeout, "timeout")
    if seconds <= 0:
        raise invalid("timeout", f"{timeout} is not above 0 seconds (math.inf: no limit)")
    return seconds
