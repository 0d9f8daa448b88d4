"""What a session gives to the engine: a switch to prepare, a flip to make, and events."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from trimtab_client.placement import IntArray, Placement
from trimtab_protocol.messages import Transfers
from trimtab_protocol.version import Version


@dataclass(frozen=True, eq=False)
class SwitchOffer(Transfers):
    """A placement to prepare, checked, and the work of this worker for it.

    It differs from the current placement in `layers` only. Until the flip only staging may be
    written: other ranks still read the current weights. `Transfers` describes the arrays, which are
    read-only, and `bytes_received`. The switch leads from `base_placement`, the current placement,
    of version `base` and digest `base_digest`, to `placement`, of version `version`.
    """

    version: Version
    base: Version
    base_digest: bytes
    placement: Placement
    base_placement: Placement

    @property
    def digest(self) -> bytes:
        """The digest of `placement`."""
        return self.placement.digest


@dataclass(frozen=True, eq=False)
class Flip:
    """The switch to a prepared placement.

    Copy staging to slots, replace the maps, and call `applied`.

    Attributes:
        offer: the offer that was prepared.
        step: the first step that runs with the new placement.
    """

    offer: SwitchOffer
    step: int

    @property
    def version(self) -> Version:
        """The version to flip to."""
        return self.offer.version

    @property
    def placement(self) -> Placement:
        """The new placement. Its maps are computed already: phy2log, log2phy, logcnt."""
        return self.offer.placement

    @property
    def layers(self) -> IntArray:
        """The layers whose maps have to be replaced, int32 [K], ascending."""
        return self.offer.layers


@dataclass(frozen=True)
class StateEvent:
    """A change of a session's state.

    Attributes:
        kind: "connected": the server has answered. "disconnected": a stream has ended.
            "complaint": the server broke the protocol, and its message was ignored.
            "in_force" or "flipped": a line of the deployment's history (PROTOCOL.md).
        values: details by name. connected: `stream`. disconnected: `stream`, `reason` and
            `retry_in`, seconds until the next attempt. complaint: `reason`. in_force and
            flipped: the values that PROTOCOL.md describes.
    """

    kind: str
    values: Mapping[str, Any]
