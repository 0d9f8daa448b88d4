"""What the store keeps of one deployment, and when it is saved."""

from __future__ import annotations

from collections.abc import Mapping

from trimtab_server.engine.store_thread import StoreThread
from trimtab_server.engine.stored_deployment import StoredDeployment
from trimtab_server.rollout.record import Record
from trimtab_server.store.counters import SavedCounters


class DeploymentStore:
    """Saves and loads one deployment. Every method raises StoreError if the store fails.

    Args:
        name: of the deployment.
        definition: its spec and policy; `save_record` saves it first if the store does not have it.
        thread: calls the store.
        stored: whether the store has the definition.
    """

    def __init__(
        self, name: str, definition: StoredDeployment, thread: StoreThread, *, stored: bool = False
    ) -> None:
        self.name = name
        self.definition = definition
        self._thread = thread
        self._stored: StoredDeployment | None = definition if stored else None
        self._uncertain = False

    @property
    def has_definition(self) -> bool:
        """Whether a definition of this deployment was ever stored."""
        return self._stored is not None

    @property
    def blocked_reason(self) -> str | None:
        """Why nothing can be saved now; None if it can."""
        return self._thread.health.blocked_reason

    async def save_definition(self, definition: StoredDeployment) -> None:
        """Save a definition, unless the store has it."""
        if definition != self._stored or self._uncertain:
            # After a failure, it is unknown which definition the store has.
            self._uncertain = True
            save = self._thread.store.save_spec
            await self._thread.call(save, self.name, definition.encode())
            self._stored, self._uncertain = definition, False

    async def save_record(self, record: Record) -> None:
        """Save the definition in use, then the record of the rollout."""
        await self.save_definition(self.definition)
        await self._thread.call(self._thread.store.save, self.name, record)
        self._thread.health.works()

    async def wait_for_history(self) -> None:
        """Return once the history has all events so far."""
        await self._thread.wait_for_history()

    async def load_record(self) -> Record:
        """The record saved last, or an empty one."""
        return await self._thread.call(self._thread.store.load, self.name) or Record()

    async def save_counters(self, baselines: Mapping[str, SavedCounters]) -> None:
        """Save what the workers have counted."""
        await self._thread.call(self._thread.store.save_counters, self.name, baselines)

    async def load_counters(self) -> Mapping[str, SavedCounters]:
        """What the workers had counted when `save_counters` was called last."""
        return await self._thread.call(self._thread.store.load_counters, self.name)
