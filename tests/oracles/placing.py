"""All placements of a tiny problem, and all deals of groups to nodes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache
from itertools import product

from trimtab_server.domain.topology import Topology

Deal = frozenset[frozenset[int]]
"""The groups of each node; nodes are alike."""


@cache
def deals(num_groups: int, num_nodes: int) -> frozenset[Deal]:
    """All ways to give each node as many groups."""
    return frozenset(
        frozenset(frozenset(g for g in range(num_groups) if node_of[g] == n) for n in node_of)
        for node_of in product(range(num_nodes), repeat=num_groups)
        if all(node_of.count(n) * num_nodes == num_groups for n in range(num_nodes))
    )


def node_loads(deal: Deal, group_load: Sequence[float]) -> list[float]:
    """Load of each node, in no order."""
    return [sum(group_load[g] for g in node) for node in deal]


@cache
def placements(topology: Topology, experts: int) -> list[tuple[int, ...]]:
    """All that hold every expert and, with groups, each group on one node, evenly."""
    return list(_placements(topology, experts))


def _placements(topology: Topology, experts: int) -> Iterator[tuple[int, ...]]:
    parts = topology.num_parts
    per_part, per_group = topology.num_replicas // parts, experts // topology.num_groups
    for slots in product(range(experts), repeat=topology.num_replicas):
        if len(set(slots)) < experts:
            continue
        groups = [
            {e // per_group for e in slots[n * per_part : (n + 1) * per_part]} for n in range(parts)
        ]
        # As few as can be on each node: then none lies on two.
        if parts == 1 or all(len(here) * parts == topology.num_groups for here in groups):
            yield slots
