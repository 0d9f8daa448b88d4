"""All deployments of a server: made by their first session or an operator, found by others."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable

from trimtab_server.domain.errors import (
    AlreadyExistsError,
    FailedPreconditionError,
    NotFoundError,
    ResourceExhaustedError,
    UnavailableError,
    require,
)
from trimtab_server.engine.arrival import Arrival, Facts
from trimtab_server.engine.config import SessionConfig
from trimtab_server.engine.connections import Connection
from trimtab_server.engine.deployment import Deployment
from trimtab_server.engine.deployment_observer import DeploymentObserver
from trimtab_server.engine.pace import Meters, Pace
from trimtab_server.engine.planner import Planner
from trimtab_server.engine.spec import Spec
from trimtab_server.engine.store_thread import StoreThread
from trimtab_server.engine.switch_observer import SwitchObserver
from trimtab_server.engine.teller import Teller
from trimtab_server.engine.turns import Turns
from trimtab_server.policy.policy import Mode, Policy
from trimtab_server.rollout.epochs import MOST_LOST
from trimtab_server.rollout.record import Record
from trimtab_server.store.errors import StoreError

_RETRY_AFTER_S = 1.0
_MOST_SHOWN = 200

_LANES = 3
"""Deployments that steer at a time: while one waits for the store, others decide. More make
decisions wait for each other, and no more of them."""

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
        self._planner = planner
        self._store = store
        self._history = history
        self._by_name: dict[str, Deployment] = {}
        self._numbers = itertools.count(1)
        self._hellos = Meters(_HELLOS)
        self._creating = asyncio.Lock()
        self._to_the_end = Turns()
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
        self._history.started(self.term)
        try:
            await self._read_all()
        except BaseException:
            await self._store.close()
            raise
        self._repeating = [
            asyncio.create_task(self._save_for_ever()),
            asyncio.create_task(self._steer_for_ever()),
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
        """A deployment that is in the store, or has sessions.

        Raises:
            NotFoundError: there is none.
        """
        if name not in self._by_name:
            raise NotFoundError(f"there is no deployment {name[:_MOST_SHOWN]!r}")
        return self._by_name[name]

    def all(self) -> list[Deployment]:
        """In order of their names."""
        return [self._by_name[name] for name in sorted(self._by_name)]

    async def create(
        self, name: str, facts: Facts, policy: Callable[[Policy], Policy]
    ) -> Deployment:
        """Make one before its workers come. The same again changes nothing.

        Args:
            name: the deployment's.
            facts: what it is, but for what only its engine knows.
            policy: makes its policy of the default one, or of what it has.

        Raises:
            InvalidArgumentError: the policy cannot be.
            AlreadyExistsError: there is another one of that name.
            ResourceExhaustedError: the server has as many deployments as it may.
            UnavailableError: the store failed.
        """
        return await self._to_the_end.finish(self._create_asked(name, facts, policy))

    async def _create_asked(
        self, name: str, facts: Facts, policy: Callable[[Policy], Policy]
    ) -> Deployment:
        async with self._creating:
            known = self._by_name.get(name)
            if known is not None:
                _require_same(known, facts, policy)
                return known
            spec, store = Spec(facts, policy(self._default_policy)), self._store.store
            self._require_room()
            try:
                record = await self._store.call(store.load, name) or Record()
                _require_same_sizes(record, facts, name)
                await self._store.call(store.save_spec, name, spec.encode())
                return await self._begin(name, spec, stored=True)
            except StoreError as error:
                raise self._unavailable(name, error) from error

    async def delete(self, name: str) -> None:
        """Forget one, and all that is stored of it.

        Raises:
            NotFoundError: there is none.
            FailedPreconditionError: it has sessions.
            UnavailableError: the store failed, and it is still there.
        """
        await self._to_the_end.finish(self._delete(name))

    async def _delete(self, name: str) -> None:
        async with self._creating:
            if name not in self._by_name and await self._was_stored(name):
                return
            deployment = self.find(name)
            sessions = len(deployment.connections)
            if sessions:
                raise FailedPreconditionError(
                    f"deployment {name!r} has {sessions} sessions: end its workers first"
                )
            # Whoever comes from now on begins another, once this one is gone.
            del self._by_name[name]
            deployment.forget()
            try:
                await deployment.settle()
                await self._store.call(self._store.store.delete, name)
            except StoreError as error:
                self._by_name[name] = deployment
                deployment.forget(False)
                raise self._unavailable(name, error) from error
            self._undecided.pop(name, None)
            await deployment.close()

    async def _was_stored(self, name: str) -> bool:
        """By a server that stored no specs, and its workers have not come since: now deleted."""
        store = self._store.store
        try:
            stored = name in await self._store.call(store.deployments)
            if stored:
                await self._store.call(store.delete, name)
        except StoreError as error:
            raise self._unavailable(name, error) from error
        return stored

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
            await self._to_the_end.settle()
            await self._save()
        for deployment in list(self._by_name.values()):
            await deployment.close()
        while self._forgetting:
            await asyncio.wait(self._forgetting)
        await self._store.close()

    async def _read_all(self) -> None:
        """Go on where the server before has ended, also before workers come back."""
        store = self._store.store
        for name in await self._store.call(store.deployments):
            try:
                spec = await self._store.call(store.load_spec, name)
                if spec is not None:
                    await self._begin(name, Spec.decode(spec), stored=True)
                    continue
                # Of a server that did not store specs: its workers will say what it is.
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

    async def _steer_for_ever(self) -> None:
        clock, every = asyncio.get_running_loop().time, self._config.report_seconds
        due = clock()
        while True:
            # From beginning to beginning: a round may take a while.
            due = max(clock(), due + every)
            await asyncio.sleep(due - clock())
            await self._steer_all()

    async def _steer_all(self) -> None:
        """A few at a time: all together they would leave the solver to nobody else."""
        waiting = iter(list(self._by_name.values()))

        async def lane() -> None:
            for deployment in waiting:
                await self._steer(deployment)
                # Where nothing had to be waited for, others wait.
                await asyncio.sleep(0)

        await asyncio.gather(*(lane() for _ in range(_LANES)))

    async def _steer(self, deployment: Deployment) -> None:
        if self._draining or deployment.forgotten:
            return
        trouble = None
        try:
            await deployment.steer()
        except Exception as error:  # noqa: BLE001 - it goes on, whatever has gone wrong
            trouble = f"nothing could be decided: {error!r}"
        # What lasts is said once: it would come again each second.
        if trouble is not None and trouble != self._undecided.get(deployment.name):
            self._teller(deployment.name).alarm(trouble)
        if self._by_name.get(deployment.name) is deployment:
            self._undecided[deployment.name] = trouble

    async def _create(self, arrival: Arrival) -> Deployment:
        self._require_room()
        name, spec = arrival.deployment, Spec(arrival.facts, self._default_policy)
        try:
            return await self._begin(name, spec, stored=False)
        except StoreError as error:
            raise self._unavailable(name, error) from error

    async def _begin(self, name: str, spec: Spec, *, stored: bool) -> Deployment:
        record = await self._store.call(self._store.store.load, name) or Record()
        _require_same_sizes(record, spec.facts, name)
        deployment = Deployment(
            spec,
            record,
            self._store,
            self._teller(name),
            self._config.offer_seconds,
            self._planner,
            stored=stored,
        )
        await deployment.start()
        self._by_name[name] = deployment
        return deployment

    @property
    def _default_policy(self) -> Policy:
        return Policy(mode=Mode(self._config.balance))

    def _require_room(self) -> None:
        most = self._config.max_deployments
        if len(self._by_name) >= most:
            raise ResourceExhaustedError(f"{most} deployments are this server's limit")

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


def _require_same(known: Deployment, facts: Facts, policy: Callable[[Policy], Policy]) -> None:
    """Raises AlreadyExistsError for what would be another one than there is."""
    differences = known.facts.differences(facts.adopting(known.facts))
    if not differences and policy(known.policy) != known.policy:
        differences = "its policy: update it instead"
    if differences:
        raise AlreadyExistsError(f"deployment {known.name!r} is there and differs in {differences}")


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
