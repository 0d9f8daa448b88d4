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
from trimtab_client.retry import RetryPolicy
from trimtab_tools.simulate.fleet_state import FleetState

_T = TypeVar("_T")
_ONCE = RetryPolicy(max_attempts=1)
_NOT_NOW = (DeadlineExceededError, FailedPreconditionError, NotFoundError, UnavailableError)
"""Not found: the first rank that connects creates the deployment."""

RETRY_S = 0.1


class OperatorClient:
    """Calls about one deployment: methods of `Client` that take its name.

    Waits between calls end when the fleet cannot go on.
    """

    def __init__(self, address: str, deployment: str, state: FleetState) -> None:
        self._address = address
        self._deployment = deployment
        self._state = state

    def once(self, call: Callable[[Client, str], _T], timeout: float) -> _T | TrimtabError:
        """Call once; returns the error if the server cannot do it now."""
        # A channel of its own: an old one may take seconds to find a server that is back.
        with Client(self._address, retry=_ONCE, timeout=timeout) as client:
            try:
                return call(client, self._deployment)
            except _NOT_NOW as error:
                return error

    def until_done(self, call: Callable[[Client, str], _T], what: str, seconds: float) -> _T:
        """Call until the server does it; `what` says what is waited for."""
        end = time.monotonic() + seconds
        while True:
            answer = self.once(call, max(RETRY_S, end - time.monotonic()))
            if not isinstance(answer, TrimtabError):
                return answer
            if time.monotonic() > end:
                raise self.late(seconds, what, answer)
            self._state.sleep(RETRY_S)

    def late(self, seconds: float, what: str, answer: object) -> DeadlineExceededError:
        """The error of a wait that has taken too long."""
        shown = f"{self._state.summary()}; the server: {answer}"
        return DeadlineExceededError(f"waited {seconds:g} s for {what}: {shown}")
