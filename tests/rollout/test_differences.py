"""Transfers of offers: carried out on slots that hold labels, they give the placement offered."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tests.solver.strategies import starts
from trimtab_protocol.messages import Transfers
from trimtab_protocol.placement import Placement
from trimtab_server.domain.placement import placement_of
from trimtab_server.domain.topology import Topology
from trimtab_server.rollout.differences import Differences

BYTES = 7


@dataclass(frozen=True)
class Case:
    """An offer, and which GPUs each worker owns."""

    base: Placement
    new: Placement
    topology: Topology
    owned: tuple[tuple[int, ...], ...]

    @property
    def contents(self) -> list[Transfers]:
        differences = Differences.between(self.base, self.new, self.topology, BYTES)
        return [differences.for_worker(gpus) for gpus in self.owned]

    def gpu(self, slot: int) -> int:
        return slot // self.topology.slots_per_gpu

    def node(self, gpu: int) -> int:
        return gpu // (self.topology.num_gpus // self.topology.num_nodes)

    def holders(self, layer: int, expert: int) -> list[int]:
        """GPUs that hold an expert in the base."""
        row = self.base.phy2log[layer].tolist()
        return sorted({self.gpu(slot) for slot, held in enumerate(row) if held == expert})


def case(base, new, gpus, *, owned=None):
    """A small case, given by hand. Each GPU has its own worker by default."""
    experts = max(map(max, base)) + 1
    return Case(
        placement_of(base, experts, gpus),
        placement_of(new, experts, gpus),
        Topology(len(base[0]), gpus),
        owned or tuple((gpu,) for gpu in range(gpus)),
    )


@st.composite
def cases(draw):
    nodes, per_node, slots = draw(
        st.tuples(st.sampled_from([1, 1, 2, 3]), st.integers(1, 3), st.integers(1, 5))
    )
    gpus = nodes * per_node
    experts, layers = draw(st.integers(1, gpus * slots)), draw(st.integers(1, 4))
    base, other = (
        starts(layers, experts, gpus * slots, draw(st.integers(0, 2**32 - 1))).numpy()
        for _ in range(2)
    )
    new = base.copy()
    for layer in range(layers):
        match draw(st.sampled_from(["same", "swapped", "other"])):
            case "swapped":
                a, b = draw(st.integers(0, gpus * slots - 1)), draw(st.integers(0, slots - 1))
                new[layer, [a, b]] = base[layer, [b, a]]
            case "other":
                new[layer] = other[layer]
    owners = draw(st.lists(st.integers(0, gpus - 1), min_size=gpus, max_size=gpus))
    owned = tuple(
        tuple(gpu for gpu in range(gpus) if owners[gpu] == worker) for worker in sorted({*owners})
    )
    return Case(
        placement_of(base, experts, gpus),
        placement_of(new, experts, gpus),
        Topology(gpus * slots, gpus, nodes),
        owned,
    )


# Engines that have nothing but what their offers say. What lies in a slot of a layer is the
# number of the expert whose weights it would be.


def old_rows_of(mine):
    """The experts in all slots before the switch, by layer."""
    return dict(zip(mine.layers.tolist(), mine.old_rows.tolist(), strict=True))


def receives_of(mine):
    """(layer, slot, expert, GPUs to read it from) of each expert that a worker receives."""
    sources = [[gpu for gpu in row if gpu >= 0] for row in mine.receive_sources.tolist()]
    return [(*to, row) for to, row in zip(mine.receives.tolist(), sources, strict=True)]


def pushed(contents, memory):
    """The content of staging by (layer, slot), after all workers have made their sends."""
    staging = {}
    for mine in contents:
        for layer, own, slot, _ in mine.sends.tolist():
            assert (layer, slot) not in staging
            staging[layer, slot] = memory[layer, own]
    return staging


def flipped(contents, memory, staging):
    """All slots after all flips. Each worker reads all its copies before it writes."""
    after = dict(memory)
    for mine in contents:
        old = old_rows_of(mine)
        for layer, slot, _ in mine.receives.tolist():
            after[layer, slot] = staging[layer, slot]
        for layer, own, slot, expert in mine.copies.tolist():
            source = memory if old[layer][own] == expert else staging
            after[layer, slot] = source[layer, own]
    return after


def memory_of(placement):
    return dict(np.ndenumerate(placement.phy2log))


@given(cases())
def test_transfers_and_copies_result_in_the_offered_placement(case):
    contents, memory = case.contents, memory_of(case.base)
    after = flipped(contents, memory, pushed(contents, memory))
    assert after == memory_of(case.new)


@given(cases())
def test_every_slot_that_differs_is_written_once_by_its_owner_and_no_other_is(case):
    written = []
    for gpus, mine in zip(case.owned, case.contents, strict=True):
        slots = [*mine.receives[:, :2].tolist(), *mine.copies[:, [0, 2]].tolist()]
        assert {case.gpu(slot) for _, slot in slots} <= set(gpus)
        written += slots
    differing = np.argwhere(case.base.phy2log != case.new.phy2log).tolist()
    assert sorted(written) == differing


@given(cases())
def test_a_gpu_receives_each_expert_that_is_new_to_it_once(case):
    slots = case.topology.slots_per_gpu
    for gpus, mine in zip(case.owned, case.contents, strict=True):
        expected = []
        for layer, gpu in np.ndindex(len(case.base.phy2log), case.topology.num_gpus):
            own = slice(gpu * slots, (gpu + 1) * slots)
            held, wanted = (p.phy2log[layer, own].tolist() for p in (case.base, case.new))
            if gpu in gpus:
                expected += [
                    [layer, gpu * slots + wanted.index(expert), expert]
                    for expert in {*wanted} - {*held}
                ]
        assert mine.receives.tolist() == sorted(expected)
        assert mine.bytes_received == BYTES * len(expected)


@given(cases())
def test_copies_stay_on_their_gpu(case):
    for mine in case.contents:
        for _, own, slot, _ in mine.copies.tolist():
            assert case.gpu(own) == case.gpu(slot)
            assert own != slot


@given(cases())
def test_sources_are_all_holders_and_those_of_the_own_node_come_first(case):
    for mine in case.contents:
        widest = 0
        for (layer, slot, expert, sources), row in zip(
            receives_of(mine), mine.receive_sources.tolist(), strict=True
        ):
            assert sorted(sources) == case.holders(layer, expert)
            assert row[: len(sources)] == sources  # and then -1
            far = [case.node(gpu) != case.node(case.gpu(slot)) for gpu in sources]
            assert far == sorted(far)
            widest = max(widest, len(sources))
        assert mine.receive_sources.shape == (len(mine.receives), widest)


@given(cases())
def test_equally_near_sources_are_sorted_by_their_reads(case):
    every = sorted(receive for mine in case.contents for receive in receives_of(mine))
    for i, (layer, slot, expert, sources) in enumerate(every):
        before = [(lay, exp, first) for lay, _, exp, (first, *_) in every[:i]]

        def rank(gpu, layer=layer, slot=slot, expert=expert, before=before):
            return (
                case.node(gpu) != case.node(case.gpu(slot)),
                before.count((layer, expert, gpu)),
                [first for *_, first in before].count(gpu),
                gpu,
            )

        assert sources == sorted(sources, key=rank)


@given(cases())
def test_sends_are_the_receives_of_all_by_first_source(case):
    contents = case.contents
    owner = {gpu: i for i, gpus in enumerate(case.owned) for gpu in gpus}
    expected: list[list[list[int]]] = [[] for _ in contents]
    for mine in contents:
        for layer, slot, expert, (first, *_) in receives_of(mine):
            start = first * case.topology.slots_per_gpu
            own = case.base.phy2log[layer].tolist().index(expert, start)
            expected[owner[first]].append([layer, own, slot, expert])
    for mine, sends in zip(contents, expected, strict=True):
        assert mine.sends.tolist() == sorted(sends, key=lambda send: (send[0], send[2]))


@given(cases())
def test_layers_that_do_not_differ_are_left_out(case):
    layers = np.flatnonzero((case.base.phy2log != case.new.phy2log).any(1)).tolist()
    for mine in case.contents:
        assert mine.layers.tolist() == layers
        assert np.array_equal(mine.old_rows, case.base.phy2log[layers])
        assert np.array_equal(mine.new_rows, case.new.phy2log[layers])
        for items in (mine.receives, mine.sends, mine.copies):
            assert {*items[:, 0].tolist()} <= {*layers}


@given(cases())
def test_rows_are_of_int32_and_in_order(case):
    for mine in case.contents:
        arrays = {name: value for name, value in vars(mine).items() if name != "bytes_received"}
        assert {value.dtype for value in arrays.values()} == {np.dtype(np.int32)}
        for items, destination in ((mine.receives, 1), (mine.sends, 2), (mine.copies, 2)):
            keys = items[:, [0, destination]].tolist()
            assert keys == sorted(keys)
        shapes = [arrays[name].shape[1] for name in ("receives", "sends", "copies")]
        assert shapes == [3, 4, 4]


def test_equal_placements_need_no_transfers():
    (mine,) = case([[0, 1, 1, 0]], [[0, 1, 1, 0]], 2, owned=((0, 1),)).contents
    assert mine.old_rows.shape == mine.new_rows.shape == (0, 4)
    assert len(mine.layers) == len(mine.receives) == len(mine.sends) == len(mine.copies) == 0
    assert mine.receive_sources.shape == (0, 0)
    assert mine.bytes_received == 0


def test_two_gpus_exchange_an_expert():
    # Layer 1 only: slot 1 of GPU 0 and slot 2 of GPU 1 change places.
    left, right = case([[0, 1, 2, 3]] * 2, [[0, 1, 2, 3], [0, 2, 1, 3]], 2).contents
    assert left.receives.tolist() == [[1, 1, 2]]
    assert left.receive_sources.tolist() == [[1]]
    assert left.sends.tolist() == [[1, 1, 2, 1]]
    assert right.receives.tolist() == [[1, 2, 1]]
    assert right.receive_sources.tolist() == [[0]]
    assert right.sends.tolist() == [[1, 2, 1, 2]]
    assert len(left.copies) == len(right.copies) == 0
    assert left.bytes_received == right.bytes_received == BYTES


def test_a_slot_can_be_read_as_it_was_and_as_it_will_be():
    # GPU 1 held 1, 2, 2, and gets 0 in slots 3 and 5, and 1, which lay in slot 3, in slot 4.
    _, right = case([[0, 1, 2, 1, 2, 2]], [[0, 1, 2, 0, 1, 0]], 2).contents
    assert right.receives.tolist() == [[0, 3, 0]]
    assert right.copies.tolist() == [[0, 3, 4, 1], [0, 3, 5, 0]]
