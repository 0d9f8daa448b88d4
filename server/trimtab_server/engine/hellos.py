"""The Hellos of workers: how often one may send them, and how many were refused."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from trimtab_server.domain.errors import ResourceExhaustedError
from trimtab_server.engine.deployment import Deployment
from trimtab_server.engine.observer import Observer
from trimtab_server.engine.rate_limit import KeyedRateLimiter, RateLimit

_LIMIT = RateLimit(per_second=1.0, burst=20)
"""Of one worker. Our client waits 0.2 to 10 s before it tries again, and a Hello costs the server
about a millisecond."""

_MAX_REFUSED = 10_000
"""Number of workers whose refusals are counted one by one."""


class Hellos:
    """Lives on the event loop.

    Args:
        deployments: all deployments by name, as they come and go.
        observer: told of each refusal.
        max_refused: of how many workers the refusals are counted; above that, those of the worker
            that was refused longest ago are forgotten.
    """

    def __init__(
        self,
        deployments: Mapping[str, Deployment],
        observer: Observer,
        max_refused: int = _MAX_REFUSED,
    ) -> None:
        self._deployments = deployments
        self._observer = observer
        self._max_refused = max_refused
        self._limiter = KeyedRateLimiter(_LIMIT)
        # How often each worker of a deployment was refused, the latest at the end. Those that gave
        # no names are counted by the reason.
        self._refused: dict[tuple[str, str], int] = {}

    def admit(self, deployment: str, worker: str) -> None:
        """Count a worker's Hello.

        Raises:
            ResourceExhaustedError: the worker sends too many.
        """
        now = asyncio.get_running_loop().time()
        delay = self._limiter.acquire((deployment, worker), now)
        if delay:
            raise ResourceExhaustedError(
                f"worker {worker!r} of {deployment!r} begins sessions too often: {_LIMIT.burst} at "
                f"once and then {_LIMIT.per_second:g} a second are the limit, which no setting "
                "changes: wait longer between two",
                delay,
            )

    def refuse(self, deployment: str, worker: str, reason: str) -> None:
        """Count a worker that was refused a session; both names are empty if it gave none."""
        # Else a few clients that send nonsense would hide that there is no room.
        key = (deployment, worker) if deployment or worker else ("", reason)
        times = self._refused.pop(key, 0) + 1
        self._refused[key] = times
        if len(self._refused) > self._max_refused:
            del self._refused[next(iter(self._refused))]
        self._observer.session_refused(deployment, worker, reason, times)
        if deployment in self._deployments:
            self._deployments[deployment].note_refusal(worker, reason)
