"""How long a worker waits before it reconnects. It never gives up."""

from __future__ import annotations

from collections.abc import Callable

from grpc import StatusCode

from trimtab_client.exceptions import TrimtabError
from trimtab_client.retry import RetryPolicy, longest_wait

DEFAULT_RECONNECT = RetryPolicy(initial_backoff=0.2, max_backoff=10.0)

_LASTING = {
    StatusCode.ALREADY_EXISTS,
    StatusCode.FAILED_PRECONDITION,
    StatusCode.INVALID_ARGUMENT,
    StatusCode.NOT_FOUND,
    StatusCode.OUT_OF_RANGE,
    StatusCode.PERMISSION_DENIED,
    StatusCode.UNAUTHENTICATED,
    StatusCode.UNIMPLEMENTED,
}
"""Errors that last until a person changes something."""


class Backoff:
    """Exponential backoff with full jitter, until a stream has lasted.

    Args:
        policy: the bounds; its `max_attempts` is ignored.
        random: returns a number in [0, 1).
    """

    def __init__(self, policy: RetryPolicy, random: Callable[[], float]) -> None:
        self._policy = policy
        self._random = random
        self._failed = 0

    def reset(self) -> None:
        """Start again with the shortest backoff."""
        self._failed = 0

    def unreachable(self) -> float:
        """Seconds to wait if there was no connection. The channel has a backoff of its own."""
        return self._random() * self._policy.initial_backoff

    def ended(self, error: TrimtabError | None, lasted: float, *, drained: bool) -> float:
        """Seconds to wait after a stream has ended; without an `error` if the server ended it.

        A stream that lasted longer, in seconds, than the last wait counts as no failure. If the
        server had announced that it stops, all its workers come back, and spread over the longest
        backoff.
        """
        policy, jitter = self._policy, self._random()
        if lasted > longest_wait(policy, max(1, self._failed)):
            self._failed = 0
        self._failed += 1
        if error is not None and error.code in _LASTING:
            return policy.max_backoff * (1 + jitter) / 2
        if drained:
            return policy.max_backoff * jitter
        asked = getattr(error, "retry_after", None) or 0.0
        return asked + jitter * longest_wait(policy, self._failed)
