"""Cuts the way to a placement into switches that fit into the staging of the workers.

A layer that fits is switched as a whole. If a layer needs more staging on some GPU than there
is, it is switched in parts. One staging slot per GPU is always enough for that, and the parts
need no more moves than the whole layer:

- Link each slot that a GPU gives up to a slot in which an expert arrives. If an expert would be
  left without a slot, link the last slot that it gives up to a slot in which it arrives. Link the
  others in any way. Then any set of links can be carried out at once, and no expert is lost.
- Each GPU gives up as many slots as experts arrive on it. So with loops added, the links are the
  edges of a bipartite graph from GPUs to GPUs, in which every GPU has the same degree n, that of
  the busiest GPU. By Kőnig (1916) such a graph is the union of n perfect matchings, and in each
  matching every GPU gives up at most one slot for one arrival.
- So s matchings fit into s staging slots, and n arrivals need ceil(n / s) parts.

Each arrival goes to the slot that it has in the target. The expert that still lies there moves, by
a copy, to a slot that the same GPU gives up. So no reordering is left for the end.

Legend for all shapes: L layers, R slots of a layer, G GPUs, S slots of a GPU, E experts.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from trimtab_protocol.placement import Placement
from trimtab_server.domain.errors import require, require_all, store_integers
from trimtab_server.domain.moves import presence
from trimtab_server.domain.placement import placement_of, tensor_of


@dataclass(frozen=True)
class Limits:
    """The limits of one switch, for every worker.

    Attributes:
        staging_slots: maximum number of expert weights that a GPU receives.
        max_layers: maximum number of layers that differ; 0 for no limit.

    Raises:
        InvalidArgumentError: `staging_slots` is below 1, or `max_layers` below 0.
    """

    staging_slots: int
    max_layers: int = 0

    def __post_init__(self) -> None:
        store_integers(self, **vars(self))
        require_all(
            (self.staging_slots >= 1, "staging_slots", f"{self.staging_slots} is below 1"),
            (self.max_layers >= 0, "max_layers", f"{self.max_layers} is below 0"),
        )


def next_piece(
    base: Placement, target: Placement, limits: Limits, order: Iterable[int] = ()
) -> Placement | None:
    """The next placement on the way from base to target; None if they are equal.

    Layers are considered in order, and each one is taken that fits into the staging that earlier
    layers leave. If a layer does not even fit into empty staging, a part of it is taken: on each
    GPU as many arrivals as there is room for on all GPUs.

    Repeated calls, each with the previous result as the base, reach the target. Together they
    move an expert to a GPU if and only if the direct switch would, and move it once. They need at
    most sum over layers of max(1, ceil(maximum arrivals on a GPU / staging_slots)) switches.

    Args:
        base: the current placement.
        target: the placement to reach.
        limits: the limits of the worker that has the least room.
        order: layers, the most urgent first. Layers that are left out follow by index.

    Raises:
        InvalidArgumentError: the target does not have the shape of the base.
    """
    _check_shape(base, target)
    differs_L = (base.phy2log != target.phy2log).any(1)
    layers = [i for i in dict.fromkeys((*order, *range(len(differs_L)))) if differs_L[i]]
    if not layers:
        return None
    arrivals_LG = _arrivals(base, target)
    room_G = np.full(base.num_gpus, limits.staging_slots)
    piece_LR = base.phy2log.copy()
    taken = 0
    for layer in layers:
        if limits.max_layers and taken == limits.max_layers:
            break
        row_R, arrivals_G, room = target.phy2log[layer], arrivals_LG[layer], int(room_G.min())
        if room and arrivals_G.max() > limits.staging_slots:
            row_R, arrivals_G = _part(base.phy2log[layer], row_R, base.num_gpus, room)
        if (arrivals_G <= room_G).all():
            piece_LR[layer] = row_R
            room_G -= arrivals_G
            taken += 1
    return placement_of(piece_LR, base.num_experts, base.num_gpus)


def _check_shape(base: Placement, target: Placement) -> None:
    shape, other = (
        (*placement.phy2log.shape, placement.num_experts, placement.num_gpus)
        for placement in (base, target)
    )
    require(shape == other, "target", f"(L, R, E, G) = {other} differs from the base's {shape}")


def _arrivals(base: Placement, new: Placement) -> npt.NDArray[np.int64]:
    """The number of experts that are new to each GPU, [L, G]."""
    held_LGE, wanted_LGE = (
        presence(tensor_of(placement), placement.num_experts, placement.num_gpus).numpy()
        for placement in (base, new)
    )
    arrivals_LG: npt.NDArray[np.int64] = (wanted_LGE & ~held_LGE).sum(2)
    return arrivals_LG


def _part(
    row_R: npt.NDArray[np.int32], goal_R: npt.NDArray[np.int32], num_gpus: int, size: int
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int64]]:
    """The row after `size` matchings, and the number of experts new to each GPU, [G]."""
    slots = len(row_R) // num_gpus
    links = _links(row_R.tolist(), goal_R.tolist(), num_gpus)
    done = _matchings(links, num_gpus, slots, size)
    given_up, arrivals = set(done), {links[slot] for slot in done}
    after_R = row_R.copy()
    # Each GPU has as many slots given up as arrivals. Slots in only one of the sets pair up in it.
    spare, occupied = sorted(given_up - arrivals), sorted(arrivals - given_up)
    after_R[spare] = row_R[occupied]
    filled = list(arrivals)
    after_R[filled] = goal_R[filled]
    return after_R, np.bincount(np.array(filled) // slots, minlength=num_gpus)


def _links(row: list[int], goal: list[int], num_gpus: int) -> dict[int, int]:
    """The slot of an arrival for each slot given up. Each GPU has as many of both."""
    slots = len(row) // num_gpus
    given_up: list[int] = []
    arrivals: list[int] = []
    for start in range(0, len(row), slots):
        here = _changes(row, goal, range(start, start + slots))
        given_up += here[0]
        arrivals += here[1]
    stay = {row[slot] for slot in set(range(len(row))) - set(given_up)}
    arrival_of = {goal[slot]: slot for slot in arrivals}
    last = {row[slot]: slot for slot in given_up if row[slot] not in stay}
    links = {slot: arrival_of[expert] for expert, slot in last.items()}
    linked = set(links.values())
    free = (slot for slot in given_up if slot not in links)
    return links | dict(zip(free, (s for s in arrivals if s not in linked), strict=True))


def _changes(row: list[int], goal: list[int], gpu: range) -> tuple[list[int], list[int]]:
    """The slots that a GPU gives up, and as many slots of experts that are new to it.

    An expert that the GPU holds before and after keeps a slot. All other changes on the GPU are
    copies, which come with the last part.
    """
    held = {row[slot] for slot in gpu}
    wanted = {goal[slot]: slot for slot in gpu}
    arrivals = sorted(slot for expert, slot in wanted.items() if expert not in held)
    changed = [slot for slot in gpu if row[slot] != goal[slot]]
    settled = {row[slot] for slot in gpu if row[slot] == goal[slot]}
    staying = {row[s]: s for s in changed if row[s] in wanted and row[s] not in settled}
    free = [slot for slot in changed if slot not in staying.values()]
    return free[: len(arrivals)], arrivals


def _matchings(links: dict[int, int], num_gpus: int, slots: int, size: int) -> list[int]:
    """The slots given up in `size` perfect matchings of the GPUs."""
    edges: list[list[tuple[int, int | None]]] = [[] for _ in range(num_gpus)]
    for slot, arrival in links.items():
        edges[slot // slots].append((arrival // slots, slot))
    degree = max(map(len, edges))
    for gpu, own in enumerate(edges):
        own += [(gpu, None)] * (degree - len(own))
    given_up: list[int] = []
    for _ in range(size):
        heads = _perfect_matching([[head for head, _ in own] for own in edges])
        for own, matched in zip(edges, heads, strict=True):
            edge = next(edge for edge in own if edge[0] == matched)
            own.remove(edge)
            given_up += [] if edge[1] is None else [edge[1]]
    return given_up


def _perfect_matching(heads: list[list[int]]) -> list[int]:
    """The head of the matched edge of each node. `heads[i]` are the heads of the edges from node i.

    All nodes have the same number of edges in and out, so a perfect matching exists. It is found
    by shortest augmenting paths.
    """
    head_of: dict[int, int] = {}
    tail_of: dict[int, int] = {}
    for start in range(len(heads)):
        head, reached_from = _free_head(heads, start, tail_of)
        while start not in head_of:
            tail = reached_from[head]
            freed = head_of.get(tail, head)
            head_of[tail], tail_of[head] = head, tail
            head = freed
    return [head_of[tail] for tail in range(len(heads))]


def _free_head(
    heads: list[list[int]], start: int, tail_of: dict[int, int]
) -> tuple[int, dict[int, int]]:
    """The nearest unmatched head, and the tail from which each head was reached."""
    reached_from: dict[int, int] = {}
    tails = deque([start])
    while True:
        tail = tails.popleft()
        for head in heads[tail]:
            if head not in reached_from:
                reached_from[head] = tail
                if head not in tail_of:
                    return head, reached_from
                tails.append(tail_of[head])
