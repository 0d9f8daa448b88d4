"""What a session gives to the engine: a switch to prepare, a flip to make, and events."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from trimtab_client.placement import IntArray, Placement
from trimtab_client.worker.effects import OfferedSwitch
from trimtab_protocol.version import Version


@dataclass(frozen=True, eq=False)
class SwitchOffer(OfferedSwitch):
    """A placement to prepare, checked, and the work of this worker for it.

    It differs from the current placement in `layers` only. Until the flip only staging may be
    written: other ranks still read the current weights. All arrays are int32 and read-only;
    K changed layers, R slots, M rows.

    Attributes:
        version: the version of the new placement.
        base: the version of the current placement.
        base_digest: the digest of the current placement.
        placement: the whole new placement.
        base_placement: the current placement.
        layers: [K], the layers that differ, ascending.
        old_rows: [K, R], the expert of each slot of those layers in the current placement.
        new_rows: [K, R], the same in `placement`.
        receives: [M, 3], layer, own slot and expert of each expert that this worker has to
            receive into staging: one for each expert new to one of its GPUs, in ascending order
            of (layer, slot).
        receive_sources: [M, X], padded with -1, the GPUs that hold the expert now, in
            the order in which to try them. A collective transfer takes the first.
        sends: [M, 4], layer, own slot that holds the expert, slot that it goes to, and
            expert, of every receive whose first source is a GPU of this worker. If the worker
            owns several GPUs, its own receives may be among them.
        copies: [M, 4], layer, own slot to read, own slot of the same GPU to write, and
            expert. The flip makes all copies at once. A copy reads the current weights of its
            slot, even if that slot is written too; but if these are of another expert, it reads
            what the slot has received.
        bytes_received: bytes that this worker receives.
    """

    base_placement: Placement
    layers: IntArray
    old_rows: IntArray
    new_rows: IntArray
    receives: IntArray
    receive_sources: IntArray
    sends: IntArray
    copies: IntArray
    bytes_received: int

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
