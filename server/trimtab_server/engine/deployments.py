"""All deployments of a server: created by their first session, found by later ones."""

from __future__ import annotations

import asyncio
import itertools

from trimtab_server.domain.errors import FailedPreconditionError, ResourceExhaustedError
from trimtab_server.engine.arrival import Arrival, Facts
from trimtab_server.engine.config import SessionConfig
from trimtab_server.engine.deployment import Connection, Deployment
from trimtab_server.engine.store_thread import StoreThread
from trimtab_server.engine.switch_observer import SwitchObserver
from trimtab_server.rollout.record import Record
from trimtab_server.store.errors import StoreError


class Deployments:
    """Lives on the event loop.

    Attributes:
        term: of this start of the server; set by `open`.
    """

    term: int

    def __init__(self, config: SessionConfig, store: StoreThread, observer: SwitchObserver) -> None:
        self._config = config
        self._store = store
        self._observer = observer
        self._by_name: dict[str, Deployment] = {}
        self._numbers = itertools.count(1)
        self._creating = asyncio.Lock()
        self._saving: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Take the store.

        Raises:
            StoreError: it cannot be had.
        """
        self.term = await self._store.open()
        self._observer.started(self.term)
        self._saving = asyncio.create_task(self._save_for_ever())

    async def join(self, arrival: Arrival) -> tuple[Deployment, Connection]:
        """Begin a session.

        Raises:
            FailedPreconditionError: the worker is not as its deployment is.
            ResourceExhaustedError: the server has as many deployments as it may.
        """
        async with self._creating:
            deployment = self._by_name.get(arrival.deployment)
            if deployment is None:
                deployment = await self._create(arrival)
        return deployment, await deployment.join(next(self._numbers), arrival)

    def find(self, name: str) -> Deployment:
        """A deployment that a worker has named since the server started.

        Raises:
            FailedPreconditionError: there is none.
        """
        if name not in self._by_name:
            raise FailedPreconditionError(f"deployment {name!r} has had no session yet")
        return self._by_name[name]

    async def drain(self, seconds: float) -> None:
        """Offer nothing any more, and tell all workers."""
        await asyncio.gather(*(each.drain(seconds) for each in self._by_name.values()))

    async def close(self) -> None:
        """Finish what has begun, and let the store go. Harmless when repeated."""
        saving, self._saving = self._saving, None
        if saving is not None:
            saving.cancel()
            await asyncio.wait([saving])
            await self._save()
        for deployment in self._by_name.values():
            await deployment.settle()
        await self._store.close()

    async def _save_for_ever(self) -> None:
        while True:
            await asyncio.sleep(self._config.save_seconds)
            await self._save()

    async def _save(self) -> None:
        for name, deployment in list(self._by_name.items()):
            try:
                await deployment.save_counters()
            except StoreError as error:
                self._observer.alarm(name, f"counters were not saved: {error}")

    async def _create(self, arrival: Arrival) -> Deployment:
        name, most = arrival.deployment, self._config.max_deployments
        if len(self._by_name) >= most:
            raise ResourceExhaustedError(f"{most} deployments are this server's limit")
        record = await self._store.call(self._store.store.load, name) or Record()
        _require_same_shape(record, arrival.facts, name)
        deployment = Deployment(
            name, arrival.facts, record, self._store, self._observer, self._config.offer_seconds
        )
        await deployment.start()
        self._by_name[name] = deployment
        return deployment


def _require_same_shape(record: Record, facts: Facts, name: str) -> None:
    """A deployment that is in the store already has its sizes from there."""
    placement = record.placement
    if placement is None:
        return
    stored = (*placement.phy2log.shape, placement.num_experts, placement.num_gpus)
    topology = facts.topology
    said = (facts.num_layers, topology.num_replicas, facts.num_experts, topology.num_gpus)
    if stored != said:
        raise FailedPreconditionError(
            f"deployment {name!r} is stored with layers, slots, experts and GPUs {stored}, "
            f"not {said}: give the new one another name, or delete the old one"
        )
