"""Cuts the way to a placement into switches that fit what workers have room for.

A layer that fits is taken whole. One that needs more staging on some GPU than there is goes
in parts, and a place of staging per GPU is always enough for that, without one more move
than the whole layer needs:

- Link each slot given up to an expert that arrives somewhere. Where an expert would be left
  without a slot, link the last that it gives up to a slot in which it arrives; the others may
  be linked at will. Then any set of links may be carried out at once, and no expert is lost.
- Each GPU gives up as many slots as experts arrive, so with loops added the links are edges
  of a bipartite graph, from GPUs to GPUs, in which every GPU has the degree of the busiest,
  n. By Kőnig (1916) such a graph consists of n perfect matchings, and in each of them every
  GPU gives up at most one slot for one arrival.
- So s matchings fit into s places of staging, and n arrivals need ceil(n / s) parts.

Each arrival goes to the slot in which the target has it. What still lies there moves to a
slot given up on the same GPU, by a copy, so nothing is left to put in order at the end.

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
    """What one switch may ask of every worker.

    Attributes:
        staging_slots: expert weights that a GPU may receive.
        max_layers: layers that may differ; 0: no limit.

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
    """The next placement on the way from base to target; None at its end.

    Layers are taken in order, each one that fits into the staging that those before it leave.
    Of a layer that does not even fit into empty staging, a part is taken: as many arrivals on
    each GPU as there is room on all.

    Pieces taken from each other in turn reach the target. Together they move an expert to a
    GPU exactly if the direct way would, and then once. There are at most
    sum over layers of max(1, ceil(most arrivals on a GPU / staging_slots)) of them.

    Args:
        base: what is in force.
        target: where to go.
        limits: those of the worker that has the least room.
        order: layers, the most urgent first; those left out follow by index.

    Raises:
        InvalidArgumentError: the target has another shape than the base.
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
    """How many experts are new to each GPU, [L, G]."""
    held_LGE, wanted_LGE = (
        presence(tensor_of(placement), placement.num_experts, placement.num_gpus).numpy()
        for placement in (base, new)
    )
    arrivals_LG: npt.NDArray[np.int64] = (wanted_LGE & ~held_LGE).sum(2)
    return arrivals_LG


def _part(
    row_R: npt.NDArray[np.int32], goal_R: npt.NDArray[np.int32], num_gpus: int, size: int
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int64]]:
    """The row after as many matchings, and how many experts are then new to each GPU, [G]."""
    slots = len(row_R) // num_gpus
    links = _links(row_R.tolist(), goal_R.tolist(), num_gpus)
    done = _matchings(links, num_gpus, slots, size)
    given_up, arrivals = set(done), {links[slot] for slot in done}
    after_R = row_R.copy()
    # Each GPU has as many of both, so what is not in both pairs up inside GPUs.
    spare, occupied = sorted(given_up - arrivals), sorted(arrivals - given_up)
    after_R[spare] = row_R[occupied]
    filled = list(arrivals)
    after_R[filled] = goal_R[filled]
    return after_R, np.bincount(np.array(filled) // slots, minlength=num_gpus)


def _links(row: list[int], goal: list[int], num_gpus: int) -> dict[int, int]:
    """Slots given up, each with the slot of an arrival: as many of both on each GPU."""
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
    """Slots that a GPU gives up, and slots of experts new to it: as many of both.

    An expert that lies there before and after keeps a slot. What else changes there is copies,
    which come with the last part.
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
    """The slots given up in as many perfect matchings of the GPUs."""
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
    """An edge from each node, by its head, where `heads[i]` are those of the edges from node i.

    Each node has as many edges to it as from it, all nodes the same number, so there is one.
    Found by shortest augmenting paths.
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
    """The nearest head without a tail, and from which tail each head was reached."""
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
