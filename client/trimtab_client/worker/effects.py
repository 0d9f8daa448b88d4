"""What the worker's state machine asks of whoever runs it, to be carried out in order."""

from __future__ import annotations

from dataclasses import dataclass

from trimtab_client.placement import Placement
from trimtab_protocol.history import Flipped, InForce
from trimtab_protocol.messages import Abort, Answer, Commit, Welcome
from trimtab_protocol.version import Version


@dataclass(frozen=True)
class OfferedSwitch:
    """An offer that fits the placement in force: what the state machine has to know of it.

    Attributes:
        version: the version that the switch leads to.
        base: the version that it starts from.
        base_digest: the digest of that placement.
        placement: the placement that it leads to.
    """

    version: Version
    base: Version
    base_digest: bytes
    placement: Placement


Order = Welcome | OfferedSwitch | Commit | Abort


@dataclass(frozen=True)
class Send:
    """Send an answer on the present stream; if that breaks, the next Hello says enough."""

    answer: Answer


@dataclass(frozen=True)
class Prepare:
    """Fill staging with what the offer asks for, and say when that has ended."""

    offer: OfferedSwitch


@dataclass(frozen=True)
class Discard:
    """Free the staging of an offer; no transfer into it is running."""

    offer: OfferedSwitch


@dataclass(frozen=True)
class Flip:
    """Serve by the offer's placement from this step boundary on, and say when that is done."""

    offer: OfferedSwitch


@dataclass(frozen=True)
class Complain:
    """The server broke the protocol; what it said has had no effect."""

    reason: str


@dataclass(frozen=True)
class Note:
    """Tell whoever watches the session, in the words of the deployment's history."""

    event: InForce | Flipped


Effect = Send | Prepare | Discard | Flip | Complain | Note
