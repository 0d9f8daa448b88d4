"""All deployments of a server: created by a worker or an operator, or found in the store."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable

from trimtab_protocol.history import Deleted
from trimtab_server.domain.errors import (
    FailedPreconditionError,
    NotFoundError,
    UnavailableError,
)
from trimtab_server.engine import creation
from trimtab_server.engine.config import SessionConfig
from trimtab_server.engine.departure import BROKEN, DRAINED, Departure
from trimtab_server.engine.deployment import Deployment
from trimtab_server.engine.deployment_spec import DeploymentSpec
from trimtab_server.engine.deployment_store import DeploymentStore
from trimtab_server.engine.engine_side import EngineAnswer, EngineRequest
from trimtab_server.engine.events import RETRY_AFTER_S, DeploymentEvents
from trimtab_server.engine.expiry import Expiry
from trimtab_server.engine.hellos import Hellos
from trimtab_server.engine.join_request import JoinRequest
from trimtab_server.engine.observer import Observer
from trimtab_server.engine.periodic_tasks import PeriodicTasks
from trimtab_server.engine.planner import Planner
from trimtab_server.engine.serial_executor import SerialExecutor
from trimtab_server.engine.server_term import ServerTerm
from trimtab_server.engine.sessions import WorkerSession
from trimtab_server.engine.store_thread import StoreThread
from trimtab_server.engine.stored_deployment import StoredDeployment
from trimtab_server.policy.policy import Mode, Policy
from trimtab_server.store.errors import StoreError


class Deployments:
    """Lives on the event loop.

    Args:
        config: settings of sessions and switches.
        store: calls the store, which `open` opens.
        observer: told of everything that happens in the deployments.
        planner: makes plans; None if this server makes none.

    Attributes:
        hellos: of workers, by which they begin sessions.
        store_health: whether the store fails.
    """

    def __init__(
        self,
        config: SessionConfig,
        store: StoreThread,
        observer: Observer,
        planner: Planner | None = None,
    ) -> None:
        self.observer = observer
        self._config = config
        self._planner = planner
        self._store = store
        self._term = ServerTerm(store, observer)
        self.store_health = health = store.health
        health.subscribe(lambda: observer.store_health_changed(health.failure))
        self._by_name: dict[str, Deployment] = {}
        self.hellos = Hellos(self._by_name, observer)
        self._periodic = PeriodicTasks(config, self._by_name)
        self._expiry = Expiry(config, self._by_name, self._delete_expired)
        self._numbers = itertools.count(1)
        self._creating = asyncio.Lock()
        self._executor = SerialExecutor()
        self._draining = False

    @property
    def term(self) -> int:
        """The term of this start of the server; known once it is open."""
        return self._term.now

    async def open(self) -> None:
        """Open the store, and go on with the deployments in it.

        Raises:
            StoreError: the store cannot be opened, or a deployment in it cannot be read.
        """
        await self._store.open()
        self.observer.term_started(self.term)
        try:
            await self._read_all()
        except BaseException:
            await self._store.close()
            raise
        self._periodic.start()
        self._expiry.start()

    async def rebalance(self, request: EngineRequest) -> EngineAnswer:
        """Answer an engine that switches by itself. The first call creates the deployment.

        Raises:
            InvalidArgumentError: the report has fallen, or is of another shape.
            FailedPreconditionError: the call does not fit the deployment, or may not create it.
            ResourceExhaustedError: the server has its largest number of deployments, or the solver
                has too much to do.
            UnavailableError: the store failed, or the server drains.
        """
        deployment = await self._find_or_create(request.call.setup.deployment, request.spec)
        try:
            return await deployment.engine.rebalance(request, next(self._numbers))
        finally:
            self._drop_if_unused(deployment)

    async def join(self, request: JoinRequest) -> tuple[Deployment, WorkerSession]:
        """Begin a session. Call `leave` when it ends.

        Raises:
            InvalidArgumentError: the worker names a term that cannot exist.
            FailedPreconditionError: the worker does not fit its deployment, or may not create it.
            SessionClosedError: the worker cannot join now.
            ResourceExhaustedError: the server has its largest number of deployments.
            UnavailableError: the store failed, or the server drains.
        """
        await self._term.outrank(request)
        deployment = await self._find_or_create(request.deployment, request.spec)
        try:
            return deployment, await deployment.workers.join(next(self._numbers), request)
        except BaseException:
            self._drop_if_unused(deployment)
            raise

    def leave(
        self, deployment: Deployment, session: WorkerSession, departure: Departure = BROKEN
    ) -> None:
        """End a session. Returns at once, so that a cancelled call can still do it."""
        if self._draining and departure.is_lost:
            departure = DRAINED
        deployment.workers.leave(session, departure)
        self._drop_if_unused(deployment)

    def find(self, name: str) -> Deployment:
        """A deployment that is in the store, or has sessions.

        Raises:
            NotFoundError: there is none of this name.
        """
        if name not in self._by_name:
            raise NotFoundError(f"there is no deployment {creation.shown(name)}")
        return self._by_name[name]

    def all(self) -> list[Deployment]:
        """All deployments, sorted by name."""
        return [self._by_name[name] for name in sorted(self._by_name)]

    async def create(
        self, name: str, spec: DeploymentSpec, policy: Callable[[Policy], Policy]
    ) -> Deployment:
        """Create a deployment before its workers join. Creating it again changes nothing.

        Args:
            name: of the deployment.
            spec: of the deployment, without the fields that only its engine knows.
            policy: returns the deployment's policy for the default, or for the current one.

        Raises:
            InvalidArgumentError: the policy is invalid.
            AlreadyExistsError: a deployment of this name exists and differs.
            FailedPreconditionError: only workers and engines may create deployments.
            ResourceExhaustedError: the server has its largest number of deployments.
            UnavailableError: the store failed.
        """
        return await self._executor.run(self._create_for_operator(name, spec, policy))

    async def _create_for_operator(
        self, name: str, spec: DeploymentSpec, policy: Callable[[Policy], Policy]
    ) -> Deployment:
        async with self._creating:
            known = self._by_name.get(name)
            if known is not None:
                known.require_same(spec, policy)
                await known.operators.claim()
                return known
            creation.require_operator_may_create(self._config, name)
            store = self._new(name, spec, policy(self._default_policy), by_operator=True)
            with self._events(name).reporting_store_errors():
                spec.require_same_sizes(await store.load_record(), name)
                await store.save_definition(store.definition)
                return await self._start(store)

    async def delete(self, name: str) -> None:
        """Delete a deployment, and all that the store has of it.

        Raises:
            NotFoundError: there is none of this name.
            FailedPreconditionError: it has sessions.
            UnavailableError: the store failed, and the deployment still exists.
        """
        await self._executor.run(self._delete(name, lambda _: "an operator deleted it"))

    async def _delete_expired(self, name: str) -> None:
        if name in self._by_name and not self._draining:
            await self._executor.run(self._delete(name, self._expiry.reason))

    async def _delete(self, name: str, reason_of: Callable[[Deployment], str]) -> None:
        """Delete a deployment if there is a reason, at a time when nobody can create another."""
        async with self._creating:
            if name not in self._by_name and await self._delete_unread(name):
                return
            deployment = self.find(name)
            reason = reason_of(deployment)
            if not reason:
                return
            if deployment.spec.by_engine:
                # Its session has no stream that could end. The next call makes it anew.
                deployment.engine.leave()
            sessions = len(deployment.sessions)
            if sessions:
                raise FailedPreconditionError(
                    f"deployment {name!r} has {sessions} sessions: end its workers first"
                )
            # A worker that joins from now on begins another deployment, once this one is deleted.
            del self._by_name[name]
            deployment.mark_deleted()
            try:
                await deployment.wait_idle()
                with self._events(name).reporting_store_errors():
                    await self._store.call(self._store.store.delete, name)
                deployment.events.note(Deleted(reason))
            except UnavailableError:
                self._by_name[name] = deployment
                deployment.mark_deleted(False)
                raise
            self._periodic.drop(name)
            await deployment.close()

    async def _delete_unread(self, name: str) -> bool:
        """Delete a deployment that an old server stored without a spec; False if there is none.

        It is not in use until its workers join again.
        """
        store = self._store.store
        with self._events(name).reporting_store_errors():
            stored = name in await self._store.call(store.deployments)
            if stored:
                await self._store.call(store.delete, name)
        return stored

    async def drain(self) -> None:
        """Offer nothing any more, tell all workers that the server stops, end their sessions."""
        self._draining = self._periodic.paused = True
        await asyncio.gather(*(each.workers.drain() for each in self._by_name.values()))

    async def close(self) -> None:
        """Finish what has begun, and close the store. Repeated calls do nothing."""
        await self._expiry.stop()
        if await self._periodic.stop():
            await self._executor.wait_idle()
            await self._periodic.save_all()
        for deployment in list(self._by_name.values()):
            await deployment.close()
        await self._executor.wait_idle()
        await self._store.close()

    async def _read_all(self) -> None:
        """Go on with all stored deployments, even before their workers are back."""
        store = self._store.store
        for name in await self._store.call(store.deployments):
            try:
                definition = await self._store.call(store.load_spec, name)
                if definition is not None:
                    decoded = StoredDeployment.decode(definition)
                    await self._start(DeploymentStore(name, decoded, self._store, stored=True))
                    continue
                # Old servers did not store specs: the workers bring it when they join.
                await self._store.call(store.load, name)
                await self._store.call(store.load_counters, name)
            except StoreError as error:
                raise type(error)(f"deployment {name!r}: {error}") from error

    async def _find_or_create(self, name: str, spec: DeploymentSpec) -> Deployment:
        """The deployment of this name. A worker or an engine that is the first creates it."""
        deployment = self._by_name.get(name)
        if deployment is None:
            async with self._creating:
                deployment = self._by_name.get(name) or await self._create_for_worker(name, spec)
        if self._draining:
            raise UnavailableError("the server is shutting down", RETRY_AFTER_S)
        return deployment

    async def _create_for_worker(self, name: str, spec: DeploymentSpec) -> Deployment:
        creation.require_worker_may_create(self._config, name)
        store = self._new(name, spec, self._default_policy, by_operator=False)
        with self._events(name).reporting_store_errors():
            return await self._start(store)

    def _new(
        self, name: str, spec: DeploymentSpec, policy: Policy, *, by_operator: bool
    ) -> DeploymentStore:
        """The store of a deployment that is to be created, if there is room for it."""
        creation.require_room(self._config, name, len(self._by_name))
        definition = StoredDeployment(spec, policy, by_operator, self._expiry.used_until())
        return DeploymentStore(name, definition, self._store)

    async def _start(self, store: DeploymentStore) -> Deployment:
        record, name = await store.load_record(), store.name
        store.definition.spec.require_same_sizes(record, name)
        deployment = Deployment(store, record, self._events(name), self._config, self._planner)
        await deployment.start()
        self._by_name[name] = deployment
        return deployment

    @property
    def _default_policy(self) -> Policy:
        return Policy(mode=Mode(self._config.balance))

    def _events(self, name: str) -> DeploymentEvents:
        return DeploymentEvents(name, self.observer)

    def _drop_if_unused(self, deployment: Deployment) -> None:
        if deployment.is_unused:
            self._executor.start(self._drop(deployment))

    async def _drop(self, deployment: Deployment) -> None:
        """Drop a deployment, unless it has come into use while its last changes were applied."""
        await deployment.wait_idle()
        if deployment.is_unused and self._by_name.get(deployment.name) is deployment:
            del self._by_name[deployment.name]
            self._periodic.drop(deployment.name)
            await deployment.close()
