"""Deletes deployments that have been unused for too long, and stores when they were used."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress

from trimtab_server.domain.errors import FailedPreconditionError, NotFoundError, UnavailableError
from trimtab_server.engine.config import SessionConfig
from trimtab_server.engine.deployment import Deployment
from trimtab_server.engine.usage import Unused, UsagePeriods
from trimtab_server.store.errors import StoreError

_MAX_RESPITE_S = 86400.0
"""After a start, workers may take so long to come back before their deployment can expire. A clock
that was wrong at the start is then noticed before it does harm."""


def reason_to_expire(unused: Unused, config: SessionConfig, uptime: float) -> str:
    """Why a deployment has expired; empty if it has not.

    Args:
        unused: of the deployment.
        config: has the limits.
        uptime: seconds since the server's start.
    """
    if unused.is_wanted:
        return ""
    limits = {"expire_seconds": config.expire_seconds}
    if unused.is_new:
        limits["expire_new_seconds"] = config.expire_new_seconds
    for setting, limit in limits.items():
        if limit and unused.seconds >= limit and uptime >= min(limit, _MAX_RESPITE_S):
            return f"unused for {unused.seconds:.1f} s (setting {setting}: {limit:g} s)"
    return ""


class Expiry:
    """Lives on the event loop.

    Args:
        config: has the limits.
        deployments: all deployments by name, as they come and go.
        delete: deletes the deployment of a name if there is still a `reason` for that.

    Attributes:
        periods: how often it is looked whether deployments are in use.
    """

    def __init__(
        self,
        config: SessionConfig,
        deployments: Mapping[str, Deployment],
        delete: Callable[[str], Awaitable[None]],
    ) -> None:
        self.periods = UsagePeriods.of(config.expire_seconds, config.expire_new_seconds)
        self._config = config
        self._deployments = deployments
        self._delete = delete
        self._task: asyncio.Task[None] | None = None
        self._began = 0.0

    def start(self) -> None:
        """Begin."""
        self._began = asyncio.get_running_loop().time()
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """End. Repeated calls do nothing."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait([task])

    def used_until(self) -> float:
        """What to store of a deployment that is created now: see `UsagePeriods.to_store`."""
        return time.time() + self.periods.period

    def reason(self, deployment: Deployment) -> str:
        """Why a deployment has expired; empty if it has not."""
        uptime = asyncio.get_running_loop().time() - self._began
        return reason_to_expire(deployment.unused, self._config, uptime)

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(self.periods.tick)
            for deployment in list(self._deployments.values()):
                try:
                    await self._look_at(deployment)
                except UnavailableError:
                    break  # The store fails, and has been reported. The next round tries again.
                except StoreError as error:
                    deployment.events.store_failed(f"its last use was not stored: {error}")
                    break
                except Exception as error:  # noqa: BLE001 - no fault may end the task
                    deployment.events.alarm(f"it could not expire: {error!r}")

    async def _look_at(self, deployment: Deployment) -> None:
        if not self.reason(deployment):
            await deployment.save_usage(self.periods)
            return
        # It may have been deleted meanwhile, or a worker has joined.
        with suppress(NotFoundError, FailedPreconditionError):
            await self._delete(deployment.name)
