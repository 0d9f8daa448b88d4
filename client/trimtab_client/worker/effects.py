"""The effects that the worker's state machine returns. The caller carries them out in order."""

from __future__ import annotations

from dataclasses import dataclass

from trimtab_client.placement import Placement
from trimtab_protocol.history import Flipped, InForce
from trimtab_protocol.messages import Abort, Answer, Commit, Welcome
from trimtab_protocol.version import Version


@dataclass(frozen=True)
class OfferedSwitch:
    """The part of an offer that the state machine reads.

    Attributes:
        version: the version that the switch leads to.
        base: the version that it starts from.
        base_digest: the digest of the placement of `base`.
        placement: the placement that it leads to.
    """

    version: Version
    base: Version
    base_digest: bytes
    placement: Placement


Order = Welcome | OfferedSwitch | Commit | Abort


@dataclass(frozen=True)
class Send:
    """Send an answer on the current stream. If that breaks, the next Hello makes up for it."""

    answer: Answer


@dataclass(frozen=True)
class Prepare:
    """Fill staging with the weights that the offer needs, and call `prepared` at the end."""

    offer: OfferedSwitch


@dataclass(frozen=True)
class Discard:
    """Free the staging of an offer. No transfer into it is running."""

    offer: OfferedSwitch


@dataclass(frozen=True)
class Flip:
    """Serve with the offer's placement from this step boundary on, then call `flipped`."""

    offer: OfferedSwitch


@dataclass(frozen=True)
class Complain:
    """A call or message broke the protocol, and was ignored."""

    reason: str


@dataclass(frozen=True)
class Note:
    """Report an event of the deployment's history to the observer of the session."""

    event: InForce | Flipped


Effect = Send | Prepare | Discard | Flip | Complain | Note
