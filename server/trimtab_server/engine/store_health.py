"""Whether the store of a server fails, and how."""

from __future__ import annotations

from collections.abc import Callable


class StoreHealth:
    """Lives on the event loop.

    Attributes:
        failure: why the store fails; None if it works.
    """

    def __init__(self) -> None:
        self.failure: str | None = None
        self._listeners: list[Callable[[], None]] = []

    @property
    def blocked_reason(self) -> str | None:
        """Why nothing that has to be stored can be done now; None if it can."""
        return None if self.failure is None else f"the store fails: {self.failure}"

    def subscribe(self, listener: Callable[[], None]) -> None:
        """Call a function whenever the store begins to fail, and when it works again."""
        self._listeners.append(listener)

    def failed(self, reason: str) -> None:
        """An operation of the store has failed."""
        self._set(reason)

    def works(self) -> None:
        """The store works again."""
        self._set(None)

    def _set(self, failure: str | None) -> None:
        changed = (failure is None) != (self.failure is None)
        self.failure = failure
        if changed:
            for listener in self._listeners:
                listener()
