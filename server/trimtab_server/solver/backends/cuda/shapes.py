"""Sizes of a packing, and which are beyond the kernels."""

from __future__ import annotations

from dataclasses import dataclass

from trimtab_server.domain.topology import Topology
from trimtab_server.solver.settings import Settings

_MOST_ITEMS = 4096
"""Of a row: its sort, in one program, grows by n log^2 n, in code as well."""

_MOST_PACKS = 1024
"""Vectors over packs live in registers, five of them."""

_MOST_TABLE = 64
"""The largest K: K * K gains are looked through in each step."""

_MOST_SLOTS = 1024
"""Of a pair of packs, one's slots are looked through against all of the other's."""

_MOST_BYTES = 2 << 30
"""Scratch of one request."""


def power_of_two(size: int, least: int = 1) -> int:
    """The power of two at or above both."""
    return max(least, 1 << (size - 1).bit_length())


@dataclass(frozen=True)
class Packs:
    """One batch of packings.

    Attributes:
        rows: X.
        items: n.
        packs: P.
        groups: groups that codes number, 0 for none.
        restarts: T.
        top_k: K, at most P.
        max_swaps: of a start.
    """

    rows: int
    items: int
    packs: int
    groups: int
    restarts: int
    top_k: int
    max_swaps: int

    @classmethod
    def of(cls, rows: int, items: int, packs: int, groups: int, settings: Settings) -> Packs:
        """The batch that these settings ask for."""
        top_k = 1 if settings.objective == "range" else min(settings.top_k, packs)
        steps = settings.max_iterations
        limit = (1 << 31) - 1
        max_swaps = limit if steps is None else min(steps, limit)
        return cls(rows, items, packs, groups, settings.restarts, top_k, max_swaps)

    @property
    def starts(self) -> int:
        """Y: programs of the kernels that pack."""
        return self.rows * self.restarts

    @property
    def slots(self) -> int:
        """S."""
        return self.items // self.packs

    @property
    def items2(self) -> int:
        """n, for vectors: two at least, or there is nothing to sort."""
        return power_of_two(self.items, 2)

    @property
    def packs2(self) -> int:
        """P, for vectors: a warp at least, whose reductions are one instruction."""
        return power_of_two(self.packs, 32)

    @property
    def slots2(self) -> int:
        """S, for vectors."""
        return power_of_two(self.slots)

    @property
    def top_k2(self) -> int:
        """K, for vectors."""
        return power_of_two(self.top_k)

    @property
    def chunk(self) -> int:
        """Slots of a pack that `find_swap` looks at together: 256 pairs at once."""
        return min(self.slots2, max(1, 256 // self.slots2))

    @property
    def unrolled(self) -> int:
        """Slots of a pack that `pair_gains` keeps in registers."""
        return min(self.slots, 16)

    @property
    def scratch_bytes(self) -> int:
        """What `Starts` allocates, about."""
        dealt = 12 * self.items
        packed = (12 * self.slots + 20 + self.groups) * self.packs2
        return self.starts * (dealt + packed + 8 * self.top_k2 * (self.top_k2 + 3))

    def beyond(self) -> str | None:
        """Why the kernels cannot do it, or None."""
        limits = (
            (self.items, _MOST_ITEMS, "items"),
            (self.packs, _MOST_PACKS, "packs"),
            (self.top_k, _MOST_TABLE, "top_k"),
            (self.slots, _MOST_SLOTS, "slots of a pack"),
            (self.scratch_bytes, _MOST_BYTES, "bytes of scratch"),
        )
        for amount, most, what in limits:
            if amount > most:
                return f"{amount} {what}; at most {most} fit"
        return None if self.rows and self.items else "nothing to pack"


@dataclass(frozen=True)
class Plan:
    """One batch of full plans.

    Attributes:
        layers: L.
        experts: E of a row: all, or those of one node.
        topology: R, G, and, if hierarchical, nodes and groups.
        packs: packing of the replicas; a row is a node of a layer.
        node_packs: packing of groups onto nodes.
    """

    layers: int
    experts: int
    topology: Topology
    packs: Packs
    node_packs: Packs

    @classmethod
    def of(cls, layers: int, experts: int, topology: Topology, settings: Settings) -> Plan:
        """The batch that these settings ask for."""
        nodes = topology.num_parts
        replicas, gpus = topology.num_replicas // nodes, topology.num_gpus // nodes
        experts //= nodes
        # An expert can only meet a replica of itself: so many have any, at most.
        groups = min(experts, replicas - experts)
        return cls(
            layers,
            experts,
            topology,
            Packs.of(layers * nodes, replicas, gpus, groups, settings),
            Packs.of(layers, topology.num_groups, nodes, 0, settings),
        )

    @property
    def group_size(self) -> int:
        """Experts of a group."""
        return self.experts * self.topology.num_parts // self.topology.num_groups

    def beyond(self) -> str | None:
        """Why the kernels cannot do it, or None."""
        if self.topology.num_parts == 1:
            return self.packs.beyond()
        return self.packs.beyond() or self.node_packs.beyond()
