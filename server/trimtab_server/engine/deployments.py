"""All deployments of a server: created by their first session, found by later ones."""

from __future__ import annotations

import asyncio
import itertools
from dataclasses import replace

from trimtab_server.domain.errors import (
    FailedPreconditionError,
    ResourceExhaustedError,
    UnavailableError,
    require,
)
from trimtab_server.engine.arrival import Arrival, Facts
from trimtab_server.engine.config import OFF, SHADOW, SessionConfig
from trimtab_server.engine.connections import Connection
from trimtab_server.engine.deployment import Deployment
from trimtab_server.engine.deployment_observer import DeploymentObserver
from trimtab_server.engine.pace import Meters, Pace
from trimtab_server.engine.planner import Planner
from trimtab_server.engine.store_thread import StoreThread
from trimtab_server.engine.switch_observer import SwitchObserver
from trimtab_server.engine.teller import Teller
from trimtab_server.policy.policy import Mode, Policy
from trimtab_server.rollout.epochs import MOST_LOST
from trimtab_server.rollout.record import Record
from trimtab_server.store.errors import StoreError

_RETRY_AFTER_S = 1.0

_HELLOS = Pace(per_second=1.0, burst=20)
"""Of one worker. Ours waits from 0.2 to 10 s between two, and a Hello costs a millisecond."""


class Deployments:
    """Lives on the event loop.

    Attributes:
        observer: told what happens in all of them.
    """

    def __init__(
        self,
        config: SessionConfig,
        store: StoreThread,
        history: SwitchObserver,
        observer: DeploymentObserver | None = None,
        planner: Planner | None = None,
    ) -> None:
        self.observer = observer or DeploymentObserver()
        self._config = config
        self._planner = None if config.balance == OFF else planner
        self._store = store
        self._history = history
        self._by_name: dict[str, Deployment] = {}
        self._numbers = itertools.count(1)
        self._hellos = Meters(_HELLOS)
        self._creating = asyncio.Lock()
        self._draining = False
        self._repeating: list[asyncio.Task[None]] = []
        self._undecided: dict[str, str | None] = {}
        self._forgetting: set[asyncio.Task[None]] = set()

    def __len__(self) -> int:
        return len(self._by_name)

    @property
    def term(self) -> int:
        """Of this start of the server: after `open`."""
        return self._store.store.term

    async def open(self) -> None:
        """Take the store.

        Raises:
            StoreError: it cannot be had, or a deployment in it cannot be read.
        """
        await self._store.open()
        try:
            await self._read_all()
        except BaseException:
            await self._store.close()
            raise
        self._history.started(self.term)
        self._repeating = [
            asyncio.create_task(self._save_for_ever()),
            asyncio.create_task(self._balance_for_ever()),
        ]

    def admit(self, deployment: str, worker: str) -> None:
        """A worker says Hello.

        Raises:
            ResourceExhaustedError: it does so too often.
        """
        wait = self._hellos.admit((deployment, worker), asyncio.get_running_loop().time())
        if wait:
            raise ResourceExhaustedError(
                f"worker {worker!r} of {deployment!r} begins sessions too often: "
                f"{_HELLOS.burst} at once and then {_HELLOS.per_second:g} a second are the limit",
                wait,
            )

    async def join(self, arrival: Arrival) -> tuple[Deployment, Connection]:
        """Begin a session; say `leave` when it ends.

        Raises:
            InvalidArgumentError: the worker has heard of a term that cannot be.
            FailedPreconditionError: the worker is not as its deployment is.
            SessionClosedError: it cannot join now.
            ResourceExhaustedError: the server has as many deployments as it may.
            UnavailableError: the store failed, or the server drains.
        """
        await self._outrank(arrival)
        deployment = self._by_name.get(arrival.deployment)
        if deployment is None:
            async with self._creating:
                deployment = self._by_name.get(arrival.deployment) or await self._create(arrival)
        if self._draining:
            raise UnavailableError("the server is shutting down", _RETRY_AFTER_S)
        try:
            return deployment, await deployment.join(next(self._numbers), arrival)
        except BaseException:
            self._forget_unused(deployment)
            raise

    def leave(self, deployment: Deployment, session: Connection) -> None:
        """End a session. Returns at once, so that a cancelled call can say it too."""
        deployment.leave(session)
        self._forget_unused(deployment)

    def find(self, name: str) -> Deployment:
        """A deployment that has sessions, or has had a complete group since the server started.

        Raises:
            FailedPreconditionError: there is none.
        """
        if name not in self._by_name:
            raise _unknown(name)
        return self._by_name[name]

    async def resume(self, name: str) -> str | None:
        """Allow a deployment's offers again, also before its workers have come back.

        Returns:
            What it was paused for; None: it was not.

        Raises:
            FailedPreconditionError: there is none of that name, nor one in the store.
            UnavailableError: the store failed.
        """
        async with self._creating:
            deployment = self._by_name.get(name)
            if deployment is None:
                return await self._resume_stored(name)
        return await deployment.resume()

    async def _resume_stored(self, name: str) -> str | None:
        store = self._store.store
        try:
            record = await self._store.call(store.load, name)
            if record is not None and record.paused is not None:
                await self._store.call(store.save, name, replace(record, paused=None))
        except StoreError as error:
            raise self._unavailable(name, error) from error
        if record is None:
            raise _unknown(name)
        return record.paused

    async def drain(self) -> None:
        """Offer nothing any more, tell all workers, and end their sessions."""
        self._draining = True
        await asyncio.gather(*(each.drain() for each in self._by_name.values()))

    async def close(self) -> None:
        """Finish what has begun, and let the store go. Harmless when repeated."""
        repeating, self._repeating = self._repeating, []
        if repeating:
            for each in repeating:
                each.cancel()
            await asyncio.wait(repeating)
            await self._save()
        for deployment in list(self._by_name.values()):
            await deployment.close()
        while self._forgetting:
            await asyncio.wait(self._forgetting)
        await self._store.close()

    async def _read_all(self) -> None:
        """What cannot be read is said now, and not when its workers come."""
        store = self._store.store
        for name in await self._store.call(store.deployments):
            try:
                await self._store.call(store.load, name)
                await self._store.call(store.load_counters, name)
            except StoreError as error:
                raise type(error)(f"deployment {name!r}: {error}") from error

    async def _save_for_ever(self) -> None:
        while True:
            await asyncio.sleep(self._config.save_seconds)
            await self._save()

    async def _save(self) -> None:
        for deployment in list(self._by_name.values()):
            try:
                await deployment.save_counters()
            except StoreError as error:
                self._teller(deployment.name).store_failed(f"counters were not saved: {error}")
            except Exception as error:  # noqa: BLE001 - it goes on, whatever has gone wrong
                self._teller(deployment.name).alarm(f"counters were not saved: {error!r}")

    async def _outrank(self, arrival: Arrival) -> None:
        """Whoever has heard a server of a higher term would not listen to this one."""
        heard, name = arrival.hello.term, arrival.deployment
        if heard <= self.term:
            return
        most = self.term + MOST_LOST
        require(
            heard <= most, "hello.term", f"{heard} is more than {most}, which can have been lost"
        )
        async with self._creating:
            before = self.term
            if heard <= before:
                return
            try:
                await self._store.call(self._store.store.outrank, heard)
            except StoreError as error:
                raise self._unavailable(name, error) from error
            self._history.started(self.term)
            self._teller(name).alarm(
                f"{arrival.hello.worker!r} has heard a server of term {heard}, and this one's is "
                f"{before}: its store was lost, or is another one. It goes on in term {self.term}"
            )

    async def _balance_for_ever(self) -> None:
        """One after another: together they would leave the solver to nobody else."""
        while self._planner is not None:
            await asyncio.sleep(self._config.report_seconds)
            for deployment in list(self._by_name.values()):
                await self._balance(deployment)

    async def _balance(self, deployment: Deployment) -> None:
        if self._draining:
            return
        trouble = None
        try:
            await deployment.balance()
        except Exception as error:  # noqa: BLE001 - it goes on, whatever has gone wrong
            trouble = f"nothing could be decided: {error!r}"
        # What lasts is said once: it would come again each second.
        if trouble is not None and trouble != self._undecided.get(deployment.name):
            self._teller(deployment.name).alarm(trouble)
        self._undecided[deployment.name] = trouble

    async def _create(self, arrival: Arrival) -> Deployment:
        name, most = arrival.deployment, self._config.max_deployments
        if len(self._by_name) >= most:
            raise ResourceExhaustedError(f"{most} deployments are this server's limit")
        try:
            record = await self._store.call(self._store.store.load, name) or Record()
            _require_same_sizes(record, arrival.facts, name)
            seconds = self._config.offer_seconds
            policy = Policy(mode=Mode.SHADOW if self._config.balance == SHADOW else Mode.ACTIVE)
            deployment = Deployment(
                arrival.facts,
                record,
                self._store,
                self._teller(name),
                seconds,
                policy,
                self._planner,
            )
            await deployment.start()
        except StoreError as error:
            raise self._unavailable(name, error) from error
        self._by_name[name] = deployment
        return deployment

    def _unavailable(self, name: str, error: StoreError) -> UnavailableError:
        self._teller(name).store_failed(f"the store failed: {error}")
        return UnavailableError("the server's store failed", _RETRY_AFTER_S)

    def _teller(self, name: str) -> Teller:
        return Teller(name, self._history, self.observer)

    def _forget_unused(self, deployment: Deployment) -> None:
        if deployment.unused:
            task = asyncio.get_running_loop().create_task(self._forget(deployment))
            self._forgetting.add(task)
            task.add_done_callback(self._forgetting.discard)

    async def _forget(self, deployment: Deployment) -> None:
        """Forget it, unless what is still under way, or a new session, makes it one to keep."""
        await deployment.settle()
        if deployment.unused and self._by_name.get(deployment.name) is deployment:
            del self._by_name[deployment.name]
            self._undecided.pop(deployment.name, None)
            await deployment.close()


def _unknown(name: str) -> FailedPreconditionError:
    return FailedPreconditionError(f"deployment {name!r} has had no session yet")


def _require_same_sizes(record: Record, facts: Facts, name: str) -> None:
    """A deployment that is in the store already has its sizes from there."""
    placement = record.placement
    if placement is None:
        return
    stored = (*placement.phy2log.shape, placement.num_experts, placement.num_gpus)
    if stored != facts.sizes:
        raise FailedPreconditionError(
            f"deployment {name!r} is stored with layers, slots, experts and GPUs {stored}, "
            f"not {facts.sizes}: give the new one another name, or delete the old one"
        )
