"""What the engine is given to carry out: a switch to prepare, and a flip to make."""

from __future__ import annotations

from dataclasses import dataclass

from trimtab_client.placement import IntArray, Placement
from trimtab_client.worker.effects import OfferedSwitch
from trimtab_protocol.version import Version


@dataclass(frozen=True, eq=False)
class SwitchOffer(OfferedSwitch):
    """A placement to prepare, checked, and what this worker has to do for it.

    It differs from the placement in force in `layers` only. Only staging may be written
    until the flip: what is in force is being served, and read by other ranks. All arrays
    are int32 and read-only; K touched layers, R slots, M rows.

    Attributes:
        version: the version that it would be.
        base: the version in force.
        base_digest: the digest of that.
        placement: all of it, as it would be.
        base_placement: what is in force.
        layers: [K], the layers that differ, ascending.
        old_rows: [K, R], the expert of each slot of those layers in force.
        new_rows: [K, R], the same in `placement`.
        receives: [M, 3], layer, own slot and expert of what this worker has to receive into
            staging: one for each expert new to one of its GPUs, in ascending order of
            (layer, slot).
        receive_sources: [M, X], padded with -1, the GPUs that hold the expert in force, in
            the order in which to try them. A collective transfer takes the first.
        sends: [M, 4], layer, own slot that holds the expert, slot that it goes to, and
            expert, of every receive whose first source is a GPU of this worker. A receive
            of its own may be among them, where it owns several GPUs.
        copies: [M, 4], layer, own slot to read, own slot of the same GPU to write, and
            expert. The flip takes all at once: each reads what the slot holds in force, even
            where that slot is written too; but where that is another expert, it reads what
            the slot has received.
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
    """What to serve by from now on: copy staging to slots, replace the maps, say `applied`.

    Attributes:
        offer: what has been prepared.
        step: the first step that runs by it.
    """

    offer: SwitchOffer
    step: int

    @property
    def version(self) -> Version:
        """The version to flip to."""
        return self.offer.version

    @property
    def placement(self) -> Placement:
        """What to serve by. Its maps are computed already: phy2log, log2phy, logcnt."""
        return self.offer.placement

    @property
    def layers(self) -> IntArray:
        """The layers whose maps have to be replaced, int32 [K], ascending."""
        return self.offer.layers
