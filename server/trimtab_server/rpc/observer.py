"""What the endpoint tells about its calls, to whoever measures it."""

from __future__ import annotations

from typing import Protocol


class CallObserver(Protocol):
    """Receives the start and the end of every call, of methods that exist.

    Calls come from the event loop, must return at once and must not raise.
    Methods are full names, such as "trimtab.v1.SolverService/Place".
    """

    def call_started(self, method: str) -> None:
        """A call of `method` began."""

    def load_answered(self, code: str) -> None:
        """A load of a PlaceStream was answered: "OK", or the code of its error."""

    def call_ended(self, method: str, code: str, seconds: float) -> None:
        """It ended with this status code, such as "OK", after this long."""
