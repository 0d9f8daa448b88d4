"""The streams of a deployment's workers, as the deployment sees them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from trimtab_protocol.messages import Welcome
from trimtab_server.engine.arrival import Arrival, least_room
from trimtab_server.engine.mailbox import Mailbox
from trimtab_server.rollout.cutting import Limits
from trimtab_server.rollout.effects import Order


@dataclass(frozen=True)
class Connection:
    """One stream.

    Attributes:
        number: of the session, never given out again while the server runs.
        arrival: what it began with.
        mailbox: what is to be sent on it.
    """

    number: int
    arrival: Arrival
    mailbox: Mailbox


class Connections:
    """Those that have not ended, by their numbers."""

    def __init__(self) -> None:
        self._by_number: dict[int, Connection] = {}

    def __len__(self) -> int:
        return len(self._by_number)

    def __iter__(self) -> Iterator[Connection]:
        return iter(tuple(self._by_number.values()))

    def add(self, session: Connection) -> None:
        """One has begun."""
        self._by_number[session.number] = session

    def end(self, number: int) -> bool:
        """One has ended; whether it had not before."""
        return self._by_number.pop(number, None) is not None

    def send(self, number: int, order: Order) -> None:
        """Send an order, unless the session has ended."""
        session = self._by_number.get(number)
        if session is not None:
            session.mailbox.put("welcome" if isinstance(order, Welcome) else "switch", order)

    def close(self, number: int, error: BaseException) -> None:
        """Have the session end with this."""
        session = self._by_number.get(number)
        if session is not None:
            session.mailbox.close(error)

    def close_all(self, error: BaseException) -> None:
        """Have all end with this."""
        for number in self._by_number:
            self.close(number, error)

    @property
    def workers(self) -> set[str]:
        """Whose they are."""
        return {session.arrival.hello.worker for session in self}

    @property
    def room(self) -> Limits:
        """What all of the workers have room for in one switch."""
        return least_room([session.arrival for session in self])
