"""The open sessions of a deployment, as the state machine sees them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from trimtab_protocol.history import Member
from trimtab_protocol.messages import Hello
from trimtab_protocol.version import Version
from trimtab_server.rollout.record import Epoch


@dataclass
class Session:
    """A worker's connection.

    Attributes:
        number: of the session.
        hello: its first message.
        in_force: the version that the worker serves with in the current epoch; None before its
            Welcome, or if it serves with a wrong placement.
        held: the version that may be in its staging; None if there is none.
    """

    number: int
    hello: Hello
    in_force: Version | None = None
    held: Version | None = None


class Sessions:
    """At most one session of each worker, sorted by the names of the workers."""

    def __init__(self) -> None:
        self._by_worker: dict[str, Session] = {}

    def __iter__(self) -> Iterator[Session]:
        return (self._by_worker[worker] for worker in sorted(self._by_worker))

    def of(self, worker: str) -> Session | None:
        """The session of a worker; None if it has none."""
        return self._by_worker.get(worker)

    def find(self, number: int) -> Session | None:
        """The session with this number; None if it has ended."""
        return next((session for session in self if session.number == number), None)

    def of_group(self, group_id: str) -> list[Session]:
        """The sessions of a group."""
        return [session for session in self if session.hello.group_id == group_id]

    def add(self, session: Session) -> None:
        """Add a session. The worker must not have another one."""
        self._by_worker[session.hello.worker] = session

    def remove(self, session: Session) -> None:
        """Remove a session."""
        del self._by_worker[session.hello.worker]


def is_member(epoch: Epoch | None, hello: Hello) -> bool:
    """Whether a worker is a member of an epoch, with the same incarnation and GPUs."""
    if epoch is None or hello.group_id != epoch.group_id:
        return False
    return epoch.members.get(hello.worker) == Member(hello.incarnation, hello.gpus)
