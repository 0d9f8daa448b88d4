"""What operators do to deployments: logged, and kept in the store over restarts."""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass
from typing import Self

from trimtab_protocol.history import Other
from trimtab_protocol.operations import OperationKind
from trimtab_server.engine.events import DeploymentEvents
from trimtab_server.engine.observer import Observer
from trimtab_server.engine.store_thread import StoreThread
from trimtab_server.store.errors import StoreCorruptError, StoreError


@dataclass(frozen=True)
class Operation:
    """A call of an operator that changed a deployment.

    Attributes:
        at: when it was done, in seconds since 1970.
        kind: what was done.
        peer: who did it: an address, and the name in the certificate if one was presented.
        before: what it changed, as it was before, for people; empty if nothing was there.
        after: the same afterwards.
    """

    at: float
    kind: OperationKind
    peer: str
    before: str
    after: str

    def encode(self) -> str:
        """This as JSON, which later versions can read too."""
        return json.dumps(asdict(self) | {"kind": self.kind.value})

    @classmethod
    def decode(cls, text: str) -> Self:
        """Reads what `encode` wrote.

        Raises:
            StoreCorruptError: `text` is no operation.
        """
        try:
            values = json.loads(text)
            return cls(**values | {"kind": OperationKind(values["kind"])})
        except (KeyError, TypeError, ValueError) as error:
            raise StoreCorruptError(f"an operation cannot be read: {error!r}") from error


class Operations:
    """Lives on the event loop.

    Args:
        store: keeps them.
        observer: told of each, for the log and the history.
        max_kept: maximum number that is kept, over all deployments.
    """

    def __init__(self, store: StoreThread, observer: Observer, max_kept: int) -> None:
        self._store = store
        self._observer = observer
        self._max_kept = max_kept

    async def record(
        self, deployment: str, kind: OperationKind, peer: str, before: str = "", after: str = ""
    ) -> None:
        """Record what was done. A failure of the store raises an alarm: it cannot be undone."""
        operation = Operation(time.time(), kind, peer, before, after)
        values = {"operation": kind.value, "peer": peer, "before": before, "after": after}
        events = DeploymentEvents(deployment, self._observer)
        events.note(Other("operated", values))
        add = self._store.store.add_operation
        try:
            await self._store.call(add, deployment, operation.encode(), self._max_kept)
        except StoreError as error:
            events.store_failed(f"{kind.value} of {peer} was done, but not recorded: {error}")

    async def newest(self, deployment: str, limit: int = 0) -> list[Operation]:
        """The last `limit` operations on a deployment, the oldest first; 0 for all.

        Raises:
            UnavailableError: the store failed.
        """
        with DeploymentEvents(deployment, self._observer).reporting_store_errors():
            texts = await self._store.call(self._store.store.operations, deployment, limit)
            return [Operation.decode(text) for text in texts]
