"""Every piece of a way fits, and the pieces together make the direct switch."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.solver.strategies import starts
from trimtab_protocol.placement import Placement
from trimtab_server.domain.errors import InvalidArgumentError
from trimtab_server.domain.placement import placement_of
from trimtab_server.rollout.cutting import Limits, next_piece


@dataclass(frozen=True)
class Way:
    """The arguments of a way: base, target, limits and order."""

    base: Placement
    target: Placement
    limits: Limits
    order: tuple[int, ...] = ()

    @property
    def pieces(self) -> list[Placement]:
        """The base and then every piece. Fails if there is no end."""
        pieces = [self.base]
        while (piece := self.after(pieces[-1])) is not None:
            pieces.append(piece)
            assert len(pieces) - 1 <= self.bound
        return pieces

    @property
    def steps(self) -> list[tuple[Placement, Placement]]:
        """Each piece with the one before it."""
        return list(pairwise(self.pieces))

    def after(self, placement: Placement) -> Placement | None:
        return next_piece(placement, self.target, self.limits, self.order)

    @property
    def bound(self) -> int:
        """Each layer on its own, in as few parts as its busiest GPU allows."""
        busiest = busiest_of(self.base, self.target)
        return sum(
            max(1, -(-busiest[layer] // self.limits.staging_slots))
            for layer in differing(self.base, self.target)
        )

    @property
    def by_priority(self) -> list[int]:
        rest = range(len(self.base.phy2log))
        return [*self.order, *(layer for layer in rest if layer not in self.order)]


def arrivals(base: Placement, new: Placement) -> list[tuple[int, int, int]]:
    """(layer, GPU, expert) of each expert that is new to a GPU."""
    both = zip(base.phy2log.tolist(), new.phy2log.tolist(), strict=True)
    slots = base.phy2log.shape[1] // base.num_gpus
    return [
        (layer, gpu, expert)
        for layer, (old, row) in enumerate(both)
        for gpu, start in enumerate(range(0, len(row), slots))
        for expert in {*row[start : start + slots]} - {*old[start : start + slots]}
    ]


def busiest_of(base: Placement, new: Placement) -> Counter[int]:
    """The maximum number of experts that are new to one GPU, for each layer."""
    busiest: Counter[int] = Counter()
    for (layer, _), number in Counter((la, g) for la, g, _ in arrivals(base, new)).items():
        busiest[layer] = max(busiest[layer], number)
    return busiest


def differing(base: Placement, new: Placement) -> list[int]:
    return np.flatnonzero((base.phy2log != new.phy2log).any(1)).tolist()


def way(base, target, gpus, staging_slots, *, max_layers=0, order=()):
    """A small way, given by hand."""
    experts = max(map(max, base)) + 1
    return Way(
        placement_of(base, experts, gpus),
        placement_of(target, experts, gpus),
        Limits(staging_slots, max_layers),
        order,
    )


@st.composite
def ways(draw):
    gpus, slots = draw(st.integers(1, 6)), draw(st.integers(1, 5))
    replicas, layers = gpus * slots, draw(st.integers(1, 5))
    # Often as many experts as slots: then none is anywhere else while it moves.
    experts = draw(st.one_of(st.just(replicas), st.integers(1, replicas)))
    base, target = (
        starts(layers, experts, replicas, draw(st.integers(0, 2**32 - 1))).numpy() for _ in range(2)
    )
    for layer in range(layers):
        # Some layers keep some of their slots, or all; where that would lose an expert, none.
        kept = draw(st.sampled_from([0, replicas // 2, replicas]))
        row = np.concatenate([base[layer, :kept], target[layer, kept:]])
        if len({*row.tolist()}) == experts:
            target[layer] = row
    return Way(
        placement_of(base, experts, gpus),
        placement_of(target, experts, gpus),
        Limits(draw(st.integers(1, 4)), draw(st.integers(0, 3))),
        tuple(draw(st.lists(st.integers(0, layers - 1), unique=True))),
    )


@given(ways())
def test_pieces_reach_the_target(way):
    assert way.pieces[-1].digest == way.target.digest


@given(ways())
def test_every_piece_holds_all_experts_and_fits_the_limits(way):
    for before, piece in way.steps:
        changed = differing(before, piece)
        assert 1 <= len(changed) <= (way.limits.max_layers or len(changed))
        received = Counter(gpu for _, gpu, _ in arrivals(before, piece))
        assert max(received.values(), default=0) <= way.limits.staging_slots
        for row in piece.phy2log.tolist():
            assert {*row} == set(range(way.base.num_experts))


@given(ways())
def test_experts_move_as_in_the_direct_switch_and_once(way):
    moved = Counter(arrival for before, piece in way.steps for arrival in arrivals(before, piece))
    assert moved == Counter(arrivals(way.base, way.target))


@given(ways())
def test_the_first_layer_is_switched_as_far_as_possible(way):
    staging = way.limits.staging_slots
    for before, piece in way.steps:
        first = next(la for la in way.by_priority if la in differing(before, way.target))
        needed = busiest_of(before, way.target)[first]
        assert busiest_of(piece, way.target)[first] == max(0, needed - staging)
        if needed <= staging:
            assert first not in differing(piece, way.target)


@given(ways())
def test_layers_are_left_out_only_where_there_is_no_room_for_them(way):
    staging = way.limits.staging_slots
    for before, piece in way.steps:
        needed = {
            layer: Counter(gpu for la, gpu, _ in arrivals(before, way.target) if la == layer)
            for layer in differing(before, way.target)
        }
        used: Counter[int] = Counter()
        taken = 0
        for layer in (layer for layer in way.by_priority if layer in needed):
            if way.limits.max_layers and taken == way.limits.max_layers:
                assert layer not in differing(before, piece)
                continue
            most = max(needed[layer].values(), default=0)
            left = min(staging - used[gpu] for gpu in range(way.base.num_gpus))
            together = max((used + needed[layer]).values(), default=0)
            in_part = most > staging and left > 0
            assert (layer in differing(before, piece)) == (together <= staging or in_part)
            if not in_part:
                assert (layer in differing(piece, way.target)) == (together > staging)
            used += Counter(gpu for la, gpu, _ in arrivals(before, piece) if la == layer)
            taken += layer in differing(before, piece)


@given(ways())
def test_an_expert_arrives_in_its_final_slot_and_stays_there(way):
    slots = way.base.phy2log.shape[1] // way.base.num_gpus
    for before, piece in way.steps:
        in_place = piece.phy2log == way.target.phy2log
        assert in_place[before.phy2log == way.target.phy2log].all()
        for layer, gpu, expert in arrivals(before, piece):
            own = slice(gpu * slots, (gpu + 1) * slots)
            assert expert in piece.phy2log[layer, own][in_place[layer, own]]


def test_many_gpus_and_experts():
    base, target = (placement_of(starts(2, 256, 288, seed).numpy(), 256, 32) for seed in (1, 2))
    busiest = busiest_of(base, target)
    assert min(busiest.values()) == 9
    steps = Way(base, target, Limits(2)).steps
    # Nine arrivals each, so the first ends in a piece that has room for one of the second.
    assert len(steps) == 9
    moved = [arrival for before, piece in steps for arrival in arrivals(before, piece)]
    assert sorted(moved) == sorted(arrivals(base, target))


A, B, C = [0, 1, 2, 3], [2, 1, 0, 3], [0, 3, 2, 1]
LEFT, RIGHT = [1, 0, 2, 3], [0, 1, 3, 2]

WAYS = {
    "there is no piece at the target": (way([A], [A], 2, 1), [[A]]),
    # Each GPU receives one expert in each layer.
    "a way that fits is one piece": (way([A, A], [B, C], 2, 2), [[A, A], [B, C]]),
    "a way that does not fit is cut by layers": (
        way([A, A], [B, C], 2, 1),
        [[A, A], [B, A], [B, C]],
    ),
    # Layers 0 and 1 are between GPUs 0 and 1; layer 2 is between 2 and 3.
    "layers on other GPUs use the remaining staging": (
        way([A, A, A], [LEFT, LEFT, RIGHT], 4, 1),
        [[A, A, A], [LEFT, A, RIGHT], [LEFT, LEFT, RIGHT]],
    ),
    "the most urgent layer goes first": (
        way([A] * 3, [B] * 3, 2, 1, order=(2,)),
        [[A, A, A], [A, A, B], [B, A, B], [B, B, B]],
    ),
    "a switch changes at most the allowed layers": (
        way([A] * 3, [B] * 3, 2, 9, max_layers=2),
        [[A, A, A], [B, B, A], [B, B, B]],
    ),
    # Both GPUs turn their slots round, which is no weight to receive.
    "copies need no staging": (
        way([[0, 1, 2, 3, 4, 5]] * 2, [[1, 2, 0, 5, 3, 4]] * 2, 2, 1),
        [[[0, 1, 2, 3, 4, 5]] * 2, [[1, 2, 0, 5, 3, 4]] * 2],
    ),
    # None of the experts has another slot, so none could go before the others.
    "a ring of GPUs is one piece": (way([A], [[3, 0, 1, 2]], 4, 1), [[A], [[3, 0, 1, 2]]]),
    # By slots it is one ring, of which no part could go by itself. But slots of a GPU are
    # alike: first 2 and 0 change GPUs. 0 takes the slot where it is to lie in the end, and what
    # lies there, 3, the one that 2 leaves.
    "a ring that passes a GPU twice is two pieces": (
        way([A], [[2, 3, 1, 0]], 2, 1),
        [[A], [[2, 1, 3, 0]], [[2, 3, 1, 0]]],
    ),
}


@pytest.mark.parametrize(("way", "pieces"), WAYS.values(), ids=WAYS)
def test_a_way_has_these_pieces(way, pieces):
    assert [piece.phy2log.tolist() for piece in way.pieces] == pieces


@pytest.mark.parametrize(
    ("limits", "field"),
    [((0,), "staging_slots"), ((1, -1), "max_layers"), ((1.5,), "staging_slots")],
)
def test_impossible_limits_are_refused(limits, field):
    with pytest.raises(InvalidArgumentError) as error:
        Limits(*limits)
    assert error.value.violations[0].field == field


@pytest.mark.parametrize(
    "other",
    [
        placement_of([[0, 1, 1, 0]] * 2, 2, 2),
        placement_of([[0, 1, 1]], 2, 1),
        placement_of([[0, 1, 2, 0]], 3, 2),
        placement_of([[0, 1, 1, 0]], 2, 4),
    ],
)
def test_a_target_of_another_shape_is_refused(other):
    with pytest.raises(InvalidArgumentError, match="target"):
        next_piece(placement_of([[0, 1, 1, 0]], 2, 2), other, Limits(1))
