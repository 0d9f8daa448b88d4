"""What the deployments tell, to whoever records it."""

from __future__ import annotations

from typing import Protocol

from trimtab_protocol.history import Event
from trimtab_server.loads.counters import Counted


class SwitchObserver(Protocol):
    """Receives what happens in deployments, on the event loop. Must return soon and not raise."""

    def started(self, term: int) -> None:
        """The server has the store, in this term."""

    def noted(self, event: Event) -> None:
        """An event of a deployment's history."""

    def reported(
        self, deployment: str, worker: str, incarnation: int, seq: int, counted: Counted
    ) -> None:
        """A worker's report was taken."""

    def alarm(self, deployment: str, reason: str) -> None:
        """A person should look."""
