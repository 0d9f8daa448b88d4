"""The open sessions of a deployment's workers, each with its outbox."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from trimtab_protocol.messages import Welcome
from trimtab_server.engine.join_request import JoinRequest
from trimtab_server.engine.outbox import Outbox
from trimtab_server.rollout.cutting import Limits
from trimtab_server.rollout.effects import Order


@dataclass(frozen=True)
class WorkerSession:
    """One stream of a worker.

    Attributes:
        number: identifies the session; no other session of this server process has it.
        outbox: messages waiting to be sent on it.
    """

    number: int
    request: JoinRequest
    outbox: Outbox


class Sessions:
    """The sessions that are open, by number."""

    def __init__(self) -> None:
        self._by_number: dict[int, WorkerSession] = {}

    def __len__(self) -> int:
        return len(self._by_number)

    def __iter__(self) -> Iterator[WorkerSession]:
        return iter(tuple(self._by_number.values()))

    def add(self, session: WorkerSession) -> None:
        """Add a session that has begun."""
        self._by_number[session.number] = session

    def remove(self, number: int) -> bool:
        """Remove a session that has ended; returns False if it was removed before."""
        return self._by_number.pop(number, None) is not None

    def send(self, number: int, order: Order) -> None:
        """Queue an order for a session; does nothing if the session has ended."""
        session = self._by_number.get(number)
        if session is not None:
            session.outbox.put("welcome" if isinstance(order, Welcome) else "switch", order)

    def close(self, number: int, error: BaseException) -> None:
        """End a session with this error; does nothing if it has ended."""
        session = self._by_number.get(number)
        if session is not None:
            session.outbox.close(error)

    def close_all(self, error: BaseException) -> None:
        """End all sessions with this error."""
        for number in tuple(self._by_number):
            self.close(number, error)

    @property
    def workers(self) -> set[str]:
        """Names of the workers that have a session."""
        return {session.request.hello.worker for session in self}

    @property
    def limits(self) -> Limits:
        """The largest switch that all of the workers have room for."""
        requests = [session.request for session in self]
        layers = [request.max_layers for request in requests if request.max_layers]
        return Limits(min(each.staging_slots for each in requests), min(layers, default=0))
