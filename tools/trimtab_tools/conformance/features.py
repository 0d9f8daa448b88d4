"""What a switch may ask for that is easy to get wrong."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from trimtab_tools.conformance.offers import Work


def swaps(work: Work) -> bool:
    """Two slots of different GPUs exchange their experts."""
    arrives = {(layer, slot): expert for layer, slot, expert in work.receives}
    gone = {(layer, work.in_force(layer, slot)): slot for layer, slot in arrives}
    return any(
        (other := gone.get((layer, expert))) is not None
        and arrives[layer, other] == work.in_force(layer, slot)
        for (layer, slot), expert in arrives.items()
    )


def chains(work: Work) -> bool:
    """A copy reads what lies in a slot that another copy writes."""
    written = {(layer, slot) for layer, _, slot, _ in work.copies}
    return any((layer, source) in written for layer, source, *_ in _of_old(work))


def fans_out(work: Work) -> bool:
    """A received expert goes to several slots."""
    return len(_of_new(work)) > 0


def gives_and_gets(work: Work) -> bool:
    """A copy reads what lies in a slot that receives another expert."""
    received = {(layer, slot) for layer, slot, _ in work.receives}
    return any((layer, source) in received for layer, source, *_ in _of_old(work))


def forks(work: Work) -> bool:
    """Of one slot, a copy reads what it holds, and another what it receives."""
    old = {(layer, source) for layer, source, *_ in _of_old(work)}
    return any((layer, source) in old for layer, source, *_ in _of_new(work))


def touches_the_last_layer_only(work: Work) -> bool:
    """All other layers stay as they are, and there are some."""
    differs_L = (work.base.phy2log != work.target.phy2log).any(1)
    return len(differs_L) > 1 and np.flatnonzero(differs_L).tolist() == [len(differs_L) - 1]


def leaves_one_idle(work: Work, ranks: Iterable[tuple[int, ...]]) -> bool:
    """One of these ranks has to do nothing, and another something."""
    return len({work.is_idle(gpus) for gpus in ranks}) > 1


def leaves_alone(work: Work, stale: Mapping[tuple[int, int], int]) -> bool:
    """Of the slots into which something else has been received, one stays, but not all do."""
    changes = (work.base.phy2log != work.target.phy2log).tolist()
    return any(map(any, changes)) and not all(changes[layer][slot] for layer, slot in stale)


def receives_anew(work: Work, stale: Mapping[tuple[int, int], int]) -> bool:
    """A slot receives another expert than it has received before."""
    return any(stale.get((la, slot), expert) != expert for la, slot, expert in work.receives)


def depends_on(work: Work, ranks: Iterable[tuple[int, ...]]) -> bool:
    """Another rank has to receive what only one of these ranks has."""
    return any(
        slot // work.slots_per_gpu not in gpus and set(sources) <= set(gpus)
        for gpus in ranks
        for (_, slot, _), sources in zip(work.receives, work.sources, strict=True)
    )


def _of_old(work: Work) -> list[tuple[int, int, int, int]]:
    """Copies of what lies in a slot."""
    return [row for row in work.copies if work.in_force(row[0], row[1]) == row[3]]


def _of_new(work: Work) -> list[tuple[int, int, int, int]]:
    """Copies of what a slot has received."""
    return [row for row in work.copies if work.in_force(row[0], row[1]) != row[3]]
