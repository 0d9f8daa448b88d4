"""Why sessions end, and how many workers a deployment is then without."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from trimtab_server.rollout.record import Epoch

MAX_SHOWN = 200
"""Characters of a worker's text that are kept. Names that are longer are refused."""


@dataclass(frozen=True)
class Departure:
    """The end of a session.

    Attributes:
        reason: why it ended, for people.
        is_lost: whether the worker did not say goodbye.
    """

    reason: str
    is_lost: bool = True

    @classmethod
    def goodbye(cls, reason: str) -> Departure:
        """A worker has said goodbye, for this reason, which may hold anything."""
        return cls(printable(reason) or "the worker said goodbye", is_lost=False)


BROKEN = Departure("the worker cancelled its stream, or the connection broke")
ENDED = Departure("the worker ended its stream without a goodbye")
DRAINED = Departure("the server is shutting down", is_lost=False)


def printable(text: str) -> str:
    """The first characters of a worker's text, with a space for each that cannot be shown."""
    return "".join(each if each.isprintable() else " " for each in text[:MAX_SHOWN])


def absent_of(epoch: Epoch | None, connected: Collection[str]) -> int | None:
    """Number of workers of a group without a session; None before the first complete group."""
    return None if epoch is None else len(epoch.members.keys() - connected)
