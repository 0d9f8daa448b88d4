"""The effects that the rollout returns. The caller carries them out in order.

Effects after a `Save` may be carried out only once the save is durable. If a save fails, the state
of the rollout is ahead of the store: discard the rollout, and create a new one from the store.
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

    REFUSED: a worker refused the offer. LATE: not all workers were prepared in time. LOST: a
    session ended. PAUSED: an operator or an alarm paused the deployment. DRAIN: the server is about
    to stop. RESTART: the server restarted during the offer.
    """

    REFUSED = "refused"
    LATE = "late"
    LOST = "lost"
    PAUSED = "paused"
    DRAIN = "drain"
    RESTART = "restart"


@dataclass(frozen=True)
class GroupOffer:
    """An offer to a group. Each worker gets its own transfers (`Differences.for_worker`)."""

    version: Version
    base: Version
    base_placement: Placement
    placement: Placement

    def with_transfers(self, transfers: Transfers) -> Offer:
        """The offer to one worker."""
        digests = self.placement.digest, self.base_placement.digest
        return Offer(self.version, digests[0], self.base, digests[1], transfers)


Order = Welcome | GroupOffer | Commit | Abort


@dataclass(frozen=True)
class Save:
    """Make the record durable."""

    record: Record


@dataclass(frozen=True)
class Send:
    """Send an order on a session. Drop it if the session has ended."""

    session: int
    order: Order


@dataclass(frozen=True)
class Close:
    """End a session, and send the reason to the worker. It may come back unless `final` is set."""

    session: int
    reason: str
    final: bool


@dataclass(frozen=True)
class Expire:
    """Call `expired` when the time to prepare an offer is over."""

    version: Version


@dataclass(frozen=True)
class Alarm:
    """Alert the operators: the protocol was broken, or cannot continue without them."""

    reason: str
    mismatch: bool = False
    """Whether workers serve with, or flipped to, a wrong placement."""


@dataclass(frozen=True)
class Note:
    """Write an event to the deployment's history."""

    event: Event


Effect = Save | Send | Close | Expire | Alarm | Note
