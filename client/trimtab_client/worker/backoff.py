"""How long a worker waits before it connects again. It never gives up."""

from __future__ import annotations

from collections.abc import Callable

from grpc import StatusCode

from trimtab_client.exceptions import TrimtabError
from trimtab_client.retry import RetryPolicy

DEFAULT_RECONNECT = RetryPolicy(initial_backoff=0.2, max_backoff=10.0)

_NOT_SOON = {
    StatusCode.ALREADY_EXISTS,
    StatusCode.FAILED_PRECONDITION,
    StatusCode.INVALID_ARGUMENT,
    StatusCode.NOT_FOUND,
    StatusCode.OUT_OF_RANGE,
    StatusCode.PERMISSION_DENIED,
    StatusCode.UNAUTHENTICATED,
    StatusCode.UNIMPLEMENTED,
}
"""Somebody has to change something before these pass."""


_MOST_DOUBLINGS = 64


class Backoff:
    """Exponential backoff with full jitter, until a stream has lasted.

    Args:
        policy: the bounds; its `max_attempts` says nothing here.
        random: a number in [0, 1).
    """

    def __init__(self, policy: RetryPolicy, random: Callable[[], float]) -> None:
        self._policy = policy
        self._random = random
        self._failed = 0

    def reset(self) -> None:
        """Begin anew."""
        self._failed = 0

    def out_of_reach(self) -> float:
        """Seconds to wait where there was no connection. The channel has a backoff of its own."""
        return self._random() * self._policy.initial_backoff

    def ended(self, error: TrimtabError | None, lasted: float, *, drained: bool) -> float:
        """Seconds to wait after a stream has ended.

        Args:
            error: how; None: the server just ended it.
            lasted: seconds. One that lasted longer than what was waited before was no failure.
            drained: whether the server had said that it would end. Then all its workers come
                back, and spread over the longest backoff.
        """
        policy, jitter = self._policy, self._random()
        if lasted > self._longest():
            self._failed = 0
        self._failed = min(self._failed + 1, _MOST_DOUBLINGS)
        if error is not None and error.code in _NOT_SOON:
            return policy.max_backoff * (1 + jitter) / 2
        if drained:
            return policy.max_backoff * jitter
        return (getattr(error, "retry_after", None) or 0.0) + jitter * self._longest()

    def _longest(self) -> float:
        longest = self._policy.initial_backoff
        for _ in range(self._failed - 1):
            longest *= self._policy.multiplier
            if longest >= self._policy.max_backoff:
                return self._policy.max_backoff
        return longest
