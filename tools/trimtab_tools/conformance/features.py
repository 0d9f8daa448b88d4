"""Features of a switch that are easy to get wrong."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from trimtab_tools.conformance.offers import Work


def swaps(work: Work) -> bool:
    """Two slots of different GPUs exchange their experts."""
    incoming = {(layer, slot): expert for layer, slot, expert in work.receives}
    slot_of = {(layer, work.in_force(layer, slot)): slot for layer, slot in incoming}
    return any(
        (other := slot_of.get((layer, expert))) is not None
        and incoming[layer, other] == work.in_force(layer, slot)
        for (layer, slot), expert in incoming.items()
    )


def chains(work: Work) -> bool:
    """A copy reads the old expert of a slot that another copy writes."""
    written = {(layer, slot) for layer, _, slot, _ in work.copies}
    return any((layer, source) in written for layer, source, *_ in _copies_of_old(work))


def fans_out(work: Work) -> bool:
    """A received expert goes to several slots."""
    return len(_copies_of_received(work)) > 0


def gives_and_gets(work: Work) -> bool:
    """A copy reads the old expert of a slot that receives another one."""
    received = {(layer, slot) for layer, slot, _ in work.receives}
    return any((layer, source) in received for layer, source, *_ in _copies_of_old(work))


def forks(work: Work) -> bool:
    """One copy reads the old expert of a slot, and another the one that the slot receives."""
    old = {(layer, source) for layer, source, *_ in _copies_of_old(work)}
    return any((layer, source) in old for layer, source, *_ in _copies_of_received(work))


def touches_the_last_layer_only(work: Work) -> bool:
    """The last layer changes, and there are other layers, which do not."""
    differs_L = (work.base.phy2log != work.target.phy2log).any(1)
    return len(differs_L) > 1 and np.flatnonzero(differs_L).tolist() == [len(differs_L) - 1]


def leaves_one_idle(work: Work, ranks: Iterable[tuple[int, ...]]) -> bool:
    """One of these ranks has nothing to do, and another one has."""
    return len({work.is_idle(gpus) for gpus in ranks}) > 1


def leaves_alone(work: Work, stale: Mapping[tuple[int, int], int]) -> bool:
    """One of the slots for which an aborted switch has received does not change; others do."""
    changes = (work.base.phy2log != work.target.phy2log).tolist()
    return any(map(any, changes)) and not all(changes[layer][slot] for layer, slot in stale)


def receives_anew(work: Work, stale: Mapping[tuple[int, int], int]) -> bool:
    """A slot receives another expert than it has received for an aborted switch."""
    return any(stale.get((la, slot), expert) != expert for la, slot, expert in work.receives)


def depends_on(work: Work, ranks: Iterable[tuple[int, ...]]) -> bool:
    """A rank has to receive an expert that only one other of these ranks has."""
    return any(
        slot // work.slots_per_gpu not in gpus and set(sources) <= set(gpus)
        for gpus in ranks
        for (_, slot, _), sources in zip(work.receives, work.sources, strict=True)
    )


def _copies_of_old(work: Work) -> list[tuple[int, int, int, int]]:
    """The copies that read the old expert of a slot."""
    return [row for row in work.copies if work.in_force(row[0], row[1]) == row[3]]


def _copies_of_received(work: Work) -> list[tuple[int, int, int, int]]:
    """The copies that read the expert that a slot has received."""
    return [row for row in work.copies if work.in_force(row[0], row[1]) != row[3]]
