"""The sizes of a packing, and the limits of the kernels."""

from __future__ import annotations

from dataclasses import dataclass

from trimtab_server.domain.topology import Topology
from trimtab_server.solver.settings import Settings

_MAX_ITEMS = 4096
"""Items of a row. One program sorts them; its time and its code grow as n log^2 n."""

_MAX_PACKS = 1024
"""Packs of a row: five vectors over packs are kept in registers."""

_MAX_TOP_K = 64
"""The largest K: each step searches K * K gains."""

_MAX_SLOTS = 1024
"""Slots of a pack: the gain of a pair of packs compares all slots of both."""

_MAX_BYTES = 2 << 30
"""Scratch memory of one request."""


def power_of_two(size: int, minimum: int = 1) -> int:
    """The smallest power of two that is at least `size`, and at least `minimum`."""
    return max(minimum, 1 << (size - 1).bit_length())


@dataclass(frozen=True)
class Packs:
    """One batch of packings.

    Attributes:
        rows: X.
        items: n.
        packs: P.
        groups: how many groups the codes number; 0 without groups.
        restarts: T.
        top_k: K, at most P.
        max_swaps: of one start.
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
        """The batch of packings that these settings ask for."""
        top_k = 1 if settings.objective == "range" else min(settings.top_k, packs)
        steps = settings.max_iterations
        limit = (1 << 31) - 1
        max_swaps = limit if steps is None else min(steps, limit)
        return cls(rows, items, packs, groups, settings.restarts, top_k, max_swaps)

    @property
    def starts(self) -> int:
        """Y: the kernels that pack have one program for each."""
        return self.rows * self.restarts

    @property
    def slots(self) -> int:
        """S."""
        return self.items // self.packs

    @property
    def items2(self) -> int:
        """The length of vectors over n items: at least two, since Triton sorts no fewer."""
        return power_of_two(self.items, 2)

    @property
    def packs2(self) -> int:
        """The length of vectors over P packs: at least a warp, whose reductions are cheap."""
        return power_of_two(self.packs, 32)

    @property
    def slots2(self) -> int:
        """The length of vectors over S slots."""
        return power_of_two(self.slots)

    @property
    def top_k2(self) -> int:
        """The length of vectors over K packs."""
        return power_of_two(self.top_k)

    @property
    def chunk(self) -> int:
        """Slots of a pack that `find_swap` tries together: 256 pairs at once."""
        return min(self.slots2, max(1, 256 // self.slots2))

    @property
    def unrolled(self) -> int:
        """Slots of a pack that `pair_gains` keeps in registers."""
        return min(self.slots, 16)

    @property
    def scratch_bytes(self) -> int:
        """About how many bytes `Starts` allocates."""
        dealt = 12 * self.items
        packed = (12 * self.slots + 20 + self.groups) * self.packs2
        return self.starts * (dealt + packed + 8 * self.top_k2 * (self.top_k2 + 3))

    def unsupported(self) -> str | None:
        """Why the kernels cannot pack this batch; None if they can."""
        limits = (
            (self.items, _MAX_ITEMS, "items"),
            (self.packs, _MAX_PACKS, "packs"),
            (self.top_k, _MAX_TOP_K, "top_k"),
            (self.slots, _MAX_SLOTS, "slots of a pack"),
            (self.scratch_bytes, _MAX_BYTES, "bytes of scratch"),
        )
        for amount, limit, what in limits:
            if amount > limit:
                return f"{amount} {what}; at most {limit} fit"
        return None if self.rows and self.items else "nothing to pack"


@dataclass(frozen=True)
class Plan:
    """One batch of full plans.

    Attributes:
        layers: L.
        experts: E of a row: all experts, or those of one node.
        topology: R, G, and for hierarchical plans nodes and groups.
        packs: packing of the replicas; a row is one node of a layer.
        node_packs: packing of groups onto nodes.
    """

    layers: int
    experts: int
    topology: Topology
    packs: Packs
    node_packs: Packs

    @classmethod
    def of(cls, layers: int, experts: int, topology: Topology, settings: Settings) -> Plan:
        """The batch of plans that these settings ask for."""
        nodes = topology.num_parts
        replicas, gpus = topology.num_replicas // nodes, topology.num_gpus // nodes
        experts //= nodes
        # Only experts with several replicas need a group: there are at most so many.
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

    def unsupported(self) -> str | None:
        """Why the kernels cannot plan this batch; None if they can."""
        if self.topology.num_parts == 1:
            return self.packs.unsupported()
        return self.packs.unsupported() or self.node_packs.unsupported()
