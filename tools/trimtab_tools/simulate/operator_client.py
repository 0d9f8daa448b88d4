"""Calls the server as an operator does, and again until it can do what is asked."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from trimtab_client.client import Client
from trimtab_client.exceptions import (
    DeadlineExceededError,
    FailedPreconditionError,
    NotFoundError,
    TrimtabError,
    UnavailableError,
)
from trimtab_client.placement import Placement
from trimtab_client.results import TriggerResult
from trimtab_client.retry import RetryPolicy
from trimtab_tools.simulate.fleet_state import FleetState

_T = TypeVar("_T")
_ONCE = RetryPolicy(max_attempts=1)
_NOT_NOW = (DeadlineExceededError, FailedPreconditionError, NotFoundError, UnavailableError)
"""Not found: the first rank that connects creates the deployment."""
_PAUSE_REASON = "the simulation ends"

RETRY_S = 0.1


class OperatorClient:
    """Calls about one deployment.

    Args:
        address: of the server.
        deployment: its name.
        state: of the fleet; waits between calls end when the fleet cannot go on.
    """

    def __init__(self, address: str, deployment: str, state: FleetState) -> None:
        self._address = address
        self._deployment = deployment
        self._state = state

    def trigger(self, placement: Placement | None, seconds: float) -> TriggerResult:
        """Ask for a placement until it is offered; see `Fleet.trigger`."""
        return self._retry(self._trigger(placement), "a switch to be offered", seconds)

    def trigger_once(
        self, placement: Placement | None, timeout: float
    ) -> TriggerResult | TrimtabError:
        """Ask for a placement once; returns the error if it cannot be offered now."""
        return self._call(self._trigger(placement), timeout)

    def pause(self, seconds: float) -> None:
        """Pause the deployment, as soon as the server can."""
        self._retry(
            lambda client: client.pause(self._deployment, _PAUSE_REASON),
            "the deployment to be paused",
            seconds,
        )

    def resume(self) -> None:
        """Resume the deployment.

        Raises:
            TrimtabError: the server cannot do it.
        """
        with Client(self._address) as client:
            client.resume(self._deployment)

    def late(self, seconds: float, what: str, answer: object) -> DeadlineExceededError:
        """The error of a wait that has taken too long."""
        shown = f"{self._state.summary()}; the server: {answer}"
        return DeadlineExceededError(f"waited {seconds:g} s for {what}: {shown}")

    def _trigger(self, placement: Placement | None) -> Callable[[Client], TriggerResult]:
        return lambda client: client.trigger(self._deployment, placement=placement)

    def _retry(self, call: Callable[[Client], _T], what: str, seconds: float) -> _T:
        end = time.monotonic() + seconds
        while True:
            answer = self._call(call, max(RETRY_S, end - time.monotonic()))
            if not isinstance(answer, TrimtabError):
                return answer
            if time.monotonic() > end:
                raise self.late(seconds, what, answer)
            self._state.sleep(RETRY_S)

    def _call(self, call: Callable[[Client], _T], timeout: float) -> _T | TrimtabError:
        # A channel of its own: an old one may take seconds to find a server that is back.
        with Client(self._address, retry=_ONCE, timeout=timeout) as client:
            try:
                return call(client)
            except _NOT_NOW as error:
                return error
