"""The term of this start of the server, which has to be above every term that a worker knows."""

from __future__ import annotations

import asyncio

from trimtab_server.domain.errors import require
from trimtab_server.engine.events import DeploymentEvents
from trimtab_server.engine.join_request import JoinRequest
from trimtab_server.engine.observer import Observer
from trimtab_server.engine.store_thread import StoreThread
from trimtab_server.rollout.epochs import MAX_LOST


class ServerTerm:
    """Lives on the event loop. `store` has been opened before anything is called."""

    def __init__(self, store: StoreThread, observer: Observer) -> None:
        self._store = store
        self._observer = observer
        self._raising = asyncio.Lock()

    @property
    def now(self) -> int:
        """The term."""
        return self._store.store.term

    async def outrank(self, request: JoinRequest) -> None:
        """Raise the term above the one that a worker knows, if that is higher.

        Otherwise the worker would ignore this server.

        Raises:
            InvalidArgumentError: the worker names a term that cannot exist.
            UnavailableError: the store failed.
        """
        heard = request.hello.term
        if heard <= self.now:
            return
        highest = self.now + MAX_LOST
        require(
            heard <= highest,
            "hello.term",
            f"{heard} is above {highest}, the highest term that a lost store can have had",
        )
        async with self._raising:
            before = self.now
            if heard <= before:
                return
            events = DeploymentEvents(request.deployment, self._observer)
            with events.reporting_store_errors():
                await self._store.call(self._store.store.outrank, heard)
            self._observer.term_started(self.now)
            events.alarm(
                f"worker {request.hello.worker!r} knows a server of term {heard}, but this one's "
                f"term was {before}: its store was lost or replaced. It goes on in term {self.now}"
            )
