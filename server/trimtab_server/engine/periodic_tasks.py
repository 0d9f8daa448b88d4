"""Saves the counters of all deployments, and rebalances them, at fixed intervals."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from trimtab_server.engine.config import SessionConfig
from trimtab_server.engine.deployment import Deployment
from trimtab_server.store.errors import StoreError

_LANES = 3
"""Deployments that are rebalanced at a time: while one waits for the store, others decide. With
more lanes, decisions only wait longer for each other."""


class PeriodicTasks:
    """Lives on the event loop.

    Args:
        config: has the intervals.
        deployments: all deployments by name, as they come and go.

    Attributes:
        paused: whether nothing is rebalanced any more, since the server drains.
    """

    def __init__(self, config: SessionConfig, deployments: Mapping[str, Deployment]) -> None:
        self.paused = False
        self._config = config
        self._deployments = deployments
        self._tasks: list[asyncio.Task[None]] = []
        self._last_failure: dict[str, str | None] = {}
        # Those whose counters could not be saved the last time.
        self._unsaved: set[str] = set()

    def start(self) -> None:
        """Begin."""
        self._tasks = [
            asyncio.create_task(self._save_forever()),
            asyncio.create_task(self._rebalance_forever()),
        ]

    async def stop(self) -> bool:
        """End both tasks; returns False if they were not running."""
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        return bool(tasks)

    def drop(self, name: str) -> None:
        """Keep nothing of a deployment that was dropped."""
        self._last_failure.pop(name, None)
        self._unsaved.discard(name)

    async def save_all(self) -> None:
        """Save the counters of all deployments."""
        for deployment in list(self._deployments.values()):
            try:
                await deployment.save_counters()
            except StoreError as error:
                deployment.events.observer.store_failed()
                self._not_saved(deployment, str(error))
            except Exception as error:  # noqa: BLE001 - no fault may end the task
                self._not_saved(deployment, repr(error))
            else:
                self._unsaved.discard(deployment.name)

    def _not_saved(self, deployment: Deployment, reason: str) -> None:
        """Report it once, until they are saved: each attempt would repeat it."""
        if deployment.name not in self._unsaved:
            self._unsaved.add(deployment.name)
            deployment.events.alarm(f"counters were not saved: {reason}")

    async def _save_forever(self) -> None:
        while True:
            await asyncio.sleep(self._config.save_seconds)
            await self.save_all()

    async def _rebalance_forever(self) -> None:
        clock, interval = asyncio.get_running_loop().time, self._config.report_seconds
        due = clock()
        while True:
            # The interval is between the starts of two rounds, since a round may take a while.
            due = max(clock(), due + interval)
            await asyncio.sleep(due - clock())
            await self._rebalance_all()

    async def _rebalance_all(self) -> None:
        """A few at a time: all at once would leave no room in the solver's queue for others."""
        waiting = iter(list(self._deployments.values()))

        async def lane() -> None:
            for deployment in waiting:
                await self._rebalance(deployment)
                # Let other tasks run, even if nothing was awaited.
                await asyncio.sleep(0)

        await asyncio.gather(*(lane() for _ in range(_LANES)))

    async def _rebalance(self, deployment: Deployment) -> None:
        if self.paused or deployment.is_deleted:
            return
        failure, name = None, deployment.name
        try:
            await deployment.rebalance_once()
        except Exception as error:  # noqa: BLE001 - no fault may end the task
            failure = f"no decision could be made: {error!r}"
        # A failure that lasts is reported once: it repeats with every round.
        if failure is not None and failure != self._last_failure.get(name):
            deployment.events.alarm(failure)
        if self._deployments.get(name) is deployment:
            self._last_failure[name] = failure
