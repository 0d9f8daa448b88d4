"""What the rollout asks of whoever runs it, to be carried out in the order given.

What is sent after a `Save` may only be sent once that is durable. If a save fails, the
rollout's state is ahead of what is durable: throw it away, and start one from the store.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from trimtab_protocol.history import Event
from trimtab_protocol.messages import Abort, Commit, Offer, Transfers, Welcome
from trimtab_protocol.placement import Placement
from trimtab_protocol.version import Version
from trimtab_server.rollout.record import Record


class Cause(Enum):
    """Why a switch was aborted.

    REFUSED: by a worker. LATE: not all were prepared in time. LOST: a session has ended. PAUSED:
    an operator, or an alarm, has paused the deployment. DRAIN: the server is about to end.
    RESTART: the server has ended over the offer.
    """

    REFUSED = "refused"
    LATE = "late"
    LOST = "lost"
    PAUSED = "paused"
    DRAIN = "drain"
    RESTART = "restart"


@dataclass(frozen=True)
class GroupOffer:
    """An offer to a group. Each worker is sent its own part of it (`Differences.for_worker`)."""

    version: Version
    base: Version
    base_placement: Placement
    placement: Placement

    def with_transfers(self, transfers: Transfers) -> Offer:
        """The offer as one worker is sent it."""
        digests = self.placement.digest, self.base_placement.digest
        return Offer(self.version, digests[0], self.base, digests[1], transfers)


Order = Welcome | GroupOffer | Commit | Abort


@dataclass(frozen=True)
class Save:
    """Make the record durable."""

    record: Record


@dataclass(frozen=True)
class Send:
    """Send an order on a session; where it has ended meanwhile, drop it."""

    session: int
    order: Order


@dataclass(frozen=True)
class Close:
    """End a session: the worker is to read why. It may come back if that can help."""

    session: int
    reason: str
    final: bool


@dataclass(frozen=True)
class Expire:
    """Tell the rollout when an offer has been open for as long as it may be."""

    version: Version


@dataclass(frozen=True)
class Alarm:
    """A person should know: the switch is no longer what the protocol says, or cannot be."""

    reason: str
    mismatch: bool = False
    """Whether workers serve by, or flipped to, another placement than they should."""


@dataclass(frozen=True)
class Note:
    """Write an event to the deployment's history."""

    event: Event


Effect = Save | Send | Close | Expire | Alarm | Note
