"""How often a worker may begin a session."""

from __future__ import annotations

import asyncio

from trimtab_server.domain.errors import ResourceExhaustedError
from trimtab_server.engine.rate_limit import KeyedRateLimiter, RateLimit

_LIMIT = RateLimit(per_second=1.0, burst=20)
"""Of one worker. Our client waits 0.2 to 10 s before it tries again, and a Hello costs the server
about a millisecond."""


class HelloLimit:
    """Counts Hellos by worker. Lives on the event loop."""

    def __init__(self) -> None:
        self._limiter = KeyedRateLimiter(_LIMIT)

    def admit(self, deployment: str, worker: str) -> None:
        """Count a worker's Hello.

        Raises:
            ResourceExhaustedError: the worker sends too many.
        """
        delay = self._limiter.acquire((deployment, worker), asyncio.get_running_loop().time())
        if delay:
            raise ResourceExhaustedError(
                f"worker {worker!r} of {deployment!r} begins sessions too often: {_LIMIT.burst} at "
                f"once and then {_LIMIT.per_second:g} a second are the limit, which no setting "
                "changes: wait longer between two",
                delay,
            )
