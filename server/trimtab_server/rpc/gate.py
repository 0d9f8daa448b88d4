"""Admits calls, up to a limit, and none while the server warms up or drains."""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from trimtab_server.domain.errors import ResourceExhaustedError, UnavailableError

_RETRY_AFTER_S = 1.0


@dataclass(frozen=True)
class Capacity:
    """How many calls of a kind may run at once.

    Attributes:
        calls: the limit for all callers together.
        setting: the name of the setting that has this limit, for messages.
        peer_share: the share of it that a single peer may use; at least one call.
    """

    calls: int
    setting: str
    peer_share: float = 1.0

    @property
    def of_peer(self) -> int:
        """The limit for a single peer."""
        return max(1, math.ceil(self.calls * self.peer_share))


class Gate:
    """Counts the calls of one kind that run, and waits for the last one.

    All methods run on the event loop. The limit is not left to gRPC, which would also count
    health checks and would not tell clients when to try again.

    Attributes:
        running: number of calls that run.
    """

    def __init__(self, capacity: Capacity) -> None:
        self.running = 0
        self._capacity = capacity
        self._by_peer = Counter[str]()
        self._refusal: str | None = "the server is warming up"
        self._is_draining = False
        self._empty = asyncio.Event()
        self._empty.set()

    @contextmanager
    def admitted(self, peer: str | None = None) -> Iterator[None]:
        """A context in which one call runs.

        Args:
            peer: whose call it is, for the limit of a single peer; None if this cannot be told.

        Raises:
            UnavailableError: the gate is not open.
            ResourceExhaustedError: the maximum number of calls run already.
        """
        self._check(peer)
        self.running += 1
        self._empty.clear()
        if peer is not None:
            self._by_peer[peer] += 1
        try:
            yield
        finally:
            self.running -= 1
            if self.running == 0:
                self._empty.set()
            if peer is not None:
                self._by_peer[peer] -= 1
                if not self._by_peer[peer]:
                    del self._by_peer[peer]

    def open(self) -> None:
        """Admit calls, unless `drain` was called before."""
        if not self._is_draining:
            self._refusal = None

    def drain(self) -> None:
        """Admit no more calls, for good."""
        self._refusal = "the server is shutting down"
        self._is_draining = True

    async def empty(self) -> None:
        """Return once no call runs."""
        await self._empty.wait()

    def _check(self, peer: str | None) -> None:
        limit = self._capacity
        if self._refusal is not None:
            raise UnavailableError(self._refusal, _RETRY_AFTER_S)
        if self.running >= limit.calls:
            raise ResourceExhaustedError(
                f"{limit.calls} such calls are running, which is the limit of this server "
                f"(setting {limit.setting})",
                _RETRY_AFTER_S,
            )
        if peer is not None and self._by_peer[peer] >= limit.of_peer:
            raise ResourceExhaustedError(
                f"{limit.of_peer} such calls of {peer} are running, which is the limit for one "
                f"peer (settings {limit.setting} and peer_share)",
                _RETRY_AFTER_S,
            )
