"""What an engine has to get right, one by one."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from functools import partial
from itertools import product

import numpy as np

from trimtab_client.worker.options import Transfer
from trimtab_tools.conformance import features
from trimtab_tools.conformance.case import Case, CaseContext
from trimtab_tools.conformance.errors import BrokenContractError, NotApplicableError
from trimtab_tools.conformance.group import Group, Offers
from trimtab_tools.conformance.offers import Work
from trimtab_tools.conformance.shape import Owners
from trimtab_tools.conformance.targets import Feature

_SWITCHES = 4
_MOST_ABORTS = 20

_Play = Callable[[CaseContext], None]


def _start(stage: CaseContext) -> None:
    with stage.group() as group:
        truth = group.truth
    with stage.group() as group:
        group.truth = truth
        group.check("in a second group, which begins with another placement")


def _prepare(stage: CaseContext) -> None:
    with stage.group() as group:
        group.prepare(group.offers(group.crowded()))


def _switch(stage: CaseContext) -> None:
    with stage.group() as group:
        for _ in range(_SWITCHES):
            group.switch(group.crowded())


def _has(feature: Feature) -> _Play:
    """A few small switches with a feature."""

    def play(stage: CaseContext) -> None:
        with stage.group() as group:
            for _ in range(_SWITCHES):
                group.switch(group.featured(feature))

    return play


def _idle(stage: CaseContext) -> None:
    _has(partial(features.leaves_one_idle, ranks=stage.gpus))(stage)


def _abort(stage: CaseContext) -> None:
    with stage.group() as group:
        received_G = np.zeros(stage.shape.gpus, np.int64)
        for _ in range(_MOST_ABORTS):
            target = group.crowded()
            offers = group.offers(target)
            group.abort(group.prepare(offers))
            per_gpu = stage.shape.slots // stage.shape.gpus
            for _, slot in _received(offers):
                received_G[slot // per_gpu] += 1
            # Whatever keeps staging would have run out of it.
            if received_G.max() > 2 * stage.shape.staging_slots:
                break
        group.switch(target)


def _after_an_abort(feature: Callable[..., bool]) -> _Play:
    """A switch, with a feature that depends on what an aborted one has received."""

    def play(stage: CaseContext) -> None:
        with stage.group() as group:
            stale = _received(_aborted(group))
            if not stale:
                raise NotApplicableError("nothing is received in this shape")
            group.switch(group.featured(partial(feature, stale=stale)))

    return play


def _unseen(stage: CaseContext) -> None:
    with stage.group() as group:
        group.abort(group.offers(group.crowded()))
        group.switch(group.crowded())


def _alone(stage: CaseContext) -> None:
    with stage.group() as group:
        ranks = group.ranks.alive()
        offers = group.offers(group.crowded())
        group.abort(group.prepare({rank: offers[rank] for rank in ranks[: len(ranks) // 2 + 1]}))
        offers = group.offers(group.crowded())
        for rank in reversed(ranks):
            group.prepare({rank: offers[rank]})
        group.flip(offers)


def _source(stage: CaseContext) -> None:
    with stage.group() as group:
        target = group.featured(partial(features.depends_on, ranks=stage.gpus))
        work = Work.between(group.placement, target)
        offers = group.offers(target)
        gone = next(i for i, gpus in enumerate(stage.gpus) if features.depends_on(work, [gpus]))
        group.ranks.close([gone])
        del offers[gone]
        for rank, failure in group.attempt(offers).items():
            # Whoever says that it is prepared is taken at its word.
            act = group.flip if failure is None else group.abort
            act({rank: offers[rank]})


def _close(stage: CaseContext) -> None:
    before: set[threading.Thread] = set()
    # The first time, libraries may start threads of their own, and keep them.
    for _ in range(2):
        before = set(threading.enumerate())
        with stage.group() as group:
            group.switch(group.crowded())
            group.prepare(group.offers(group.crowded()))
    for thread in set(threading.enumerate()) - before:
        # Such a thread is Python's idea of one that is not its own.
        if not thread.name.startswith("Dummy-"):
            thread.join(stage.patience)
            if thread.is_alive():
                raise BrokenContractError(f"thread {thread.name!r} still runs after close")


def _aborted(group: Group) -> Offers:
    offers = group.prepare(group.offers(group.crowded()))
    group.abort(offers)
    return offers


def _received(offers: Offers) -> Mapping[tuple[int, int], int]:
    """The expert that comes into each slot, by (layer, slot)."""
    rows = [row for offer in offers.values() for row in offer.receives.tolist()]
    return {(layer, slot): expert for layer, slot, expert in rows}


_BOTH = (Transfer.PULL, Transfer.COLLECTIVE)
_PULL, _COLLECTIVE = _BOTH[:1], _BOTH[1:]
_ANY = tuple(Owners)
_MANY = (Owners.EACH, Owners.SEVERAL)

_TABLE: list[tuple[str, str, tuple[Transfer, ...], tuple[Owners, ...], _Play]] = [
    ("start", "a group serves by the placement that it is given", _BOTH, _ANY, _start),
    ("prepare", "a transfer changes nothing that is in force", _BOTH, _ANY, _prepare),
    ("switch", "a flip takes all of a switch, and frees staging", _BOTH, _ANY, _switch),
    ("swap", "two GPUs may exchange experts", _BOTH, _ANY, _has(features.swaps)),
    ("chain", "a copy reads what was in force before the flip", _BOTH, _ANY, _has(features.chains)),
    (
        "hand-over",
        "a slot may give its expert to another while it receives one",
        _BOTH,
        _ANY,
        _has(features.gives_and_gets),
    ),
    (
        "fan-out",
        "a received expert may be due in several slots",
        _BOTH,
        _ANY,
        _has(features.fans_out),
    ),
    (
        "fork",
        "copies of one slot may read what it held and what it receives",
        _BOTH,
        _ANY,
        _has(features.forks),
    ),
    (
        "layer",
        "layers that a switch does not touch stay as they are",
        _BOTH,
        _ANY,
        _has(features.touches_the_last_layer_only),
    ),
    ("idle", "a rank whose slots stay as they are replaces its maps", _BOTH, _MANY, _idle),
    ("abort", "an abort changes nothing, and frees staging", _BOTH, _ANY, _abort),
    (
        "leftover",
        "what an aborted switch has received comes into no slot",
        _BOTH,
        _ANY,
        _after_an_abort(features.leaves_alone),
    ),
    (
        "stale",
        "a slot receives anew, whatever an aborted switch has received for it",
        _BOTH,
        _ANY,
        _after_an_abort(features.receives_anew),
    ),
    ("unseen", "an abort may come where no transfer began", _COLLECTIVE, _ANY, _unseen),
    ("alone", "a rank pulls whether or not others do", _PULL, _MANY, _alone),
    ("source", "a transfer without its source ends, and fails", _PULL, _MANY, _source),
    ("close", "close ends all threads, also with staging full", _BOTH, _ANY, _close),
]

CASES: tuple[Case, ...] = tuple(
    Case(name, reason, transfer, owners, play)
    for name, reason, transfers, whose, play in _TABLE
    for transfer, owners in product(transfers, whose)
)
"""All cases, for `pytest.mark.parametrize("case", CASES, ids=str)`."""
