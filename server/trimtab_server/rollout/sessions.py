"""The sessions of a deployment, while their streams last."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from trimtab_protocol.history import Member
from trimtab_protocol.messages import Hello
from trimtab_protocol.version import Version
from trimtab_server.rollout.record import Epoch


@dataclass
class Session:
    """What is known of a worker while its stream lasts.

    Attributes:
        number: of the session.
        hello: what it began with.
        in_force: what it serves by in the present epoch; None before that, and where it
            serves by what it cannot.
        held: what may be in its staging.
    """

    number: int
    hello: Hello
    in_force: Version | None = None
    held: Version | None = None


class Sessions:
    """At most one session of each worker, in the order of the workers' names."""

    def __init__(self) -> None:
        self._by_worker: dict[str, Session] = {}

    def __iter__(self) -> Iterator[Session]:
        return (self._by_worker[worker] for worker in sorted(self._by_worker))

    def of(self, worker: str) -> Session | None:
        """A worker's session."""
        return self._by_worker.get(worker)

    def numbered(self, number: int) -> Session | None:
        """The session of this number, unless it has ended."""
        return next((session for session in self if session.number == number), None)

    def of_group(self, group_id: str) -> list[Session]:
        """The sessions of a group."""
        return [session for session in self if session.hello.group_id == group_id]

    def add(self, session: Session) -> None:
        """Begin a session; the worker has no other."""
        self._by_worker[session.hello.worker] = session

    def end(self, session: Session) -> None:
        """End a session."""
        del self._by_worker[session.hello.worker]


def is_member(epoch: Epoch | None, hello: Hello) -> bool:
    """Whether a worker is of an epoch's group, as it was when the epoch opened."""
    if epoch is None or hello.group_id != epoch.group_id:
        return False
    return epoch.members.get(hello.worker) == Member(hello.incarnation, hello.gpus)
