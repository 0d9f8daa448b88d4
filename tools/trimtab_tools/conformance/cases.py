"""All cases, each with the rule that it checks."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from functools import partial
from itertools import product

import numpy as np

from trimtab_protocol.messages import Transfer
from trimtab_tools.conformance import features
from trimtab_tools.conformance.case import Case, CaseContext
from trimtab_tools.conformance.errors import BrokenContractError, NotApplicableError
from trimtab_tools.conformance.group import Group, Offers
from trimtab_tools.conformance.offers import Work
from trimtab_tools.conformance.shape import Owners
from trimtab_tools.conformance.targets import Feature

_SWITCHES = 4
_MAX_ABORTS = 20

_Check = Callable[[CaseContext], None]


def _start(context: CaseContext) -> None:
    with context.group() as group:
        outputs = group.expert_outputs
    with context.group() as group:
        group.expert_outputs = outputs
        group.check("in a second group, which begins with another placement")


def _prepare(context: CaseContext) -> None:
    with context.group() as group:
        group.prepare(group.offers(group.large_target()))


def _switch(context: CaseContext) -> None:
    with context.group() as group:
        for _ in range(_SWITCHES):
            group.switch(group.large_target())


def _has(feature: Feature) -> _Check:
    """Checks a few small switches with a feature."""

    def check(context: CaseContext) -> None:
        with context.group() as group:
            for _ in range(_SWITCHES):
                group.switch(group.target_with(feature))

    return check


def _idle(context: CaseContext) -> None:
    _has(partial(features.leaves_one_idle, ranks=context.gpus))(context)


def _abort(context: CaseContext) -> None:
    with context.group() as group:
        received_G = np.zeros(context.shape.gpus, np.int64)
        for _ in range(_MAX_ABORTS):
            target = group.large_target()
            offers = group.offers(target)
            group.abort(group.prepare(offers))
            per_gpu = context.shape.slots // context.shape.gpus
            for _, slot in _received(offers):
                received_G[slot // per_gpu] += 1
            # An engine that keeps staging after an abort has none left by now.
            if received_G.max() > 2 * context.shape.staging_slots:
                break
        group.switch(target)


def _after_an_abort(feature: Callable[..., bool]) -> _Check:
    """Checks a switch with a feature that depends on what an aborted one has received."""

    def check(context: CaseContext) -> None:
        with context.group() as group:
            stale = _received(_aborted(group))
            if not stale:
                raise NotApplicableError("no rank receives an expert in this shape")
            group.switch(group.target_with(partial(feature, stale=stale)))

    return check


def _unseen(context: CaseContext) -> None:
    with context.group() as group:
        group.abort(group.offers(group.large_target()))
        group.switch(group.large_target())


def _alone(context: CaseContext) -> None:
    with context.group() as group:
        ranks = group.ranks.alive()
        offers = group.offers(group.large_target())
        group.abort(group.prepare({rank: offers[rank] for rank in ranks[: len(ranks) // 2 + 1]}))
        offers = group.offers(group.large_target())
        for rank in reversed(ranks):
            group.prepare({rank: offers[rank]})
        group.flip(offers)


def _source(context: CaseContext) -> None:
    with context.group() as group:
        target = group.target_with(partial(features.depends_on, ranks=context.gpus))
        work = Work.between(group.placement, target)
        offers = group.offers(target)
        gone = next(i for i, gpus in enumerate(context.gpus) if features.depends_on(work, [gpus]))
        group.ranks.close([gone])
        del offers[gone]
        for rank, failure in group.attempt(offers).items():
            # A rank that says it is prepared has to be able to flip.
            act = group.flip if failure is None else group.abort
            act({rank: offers[rank]})


def _close(context: CaseContext) -> None:
    before: set[threading.Thread] = set()
    # Twice, since libraries may start threads of their own at first, and keep them.
    for _ in range(2):
        before = set(threading.enumerate())
        with context.group() as group:
            group.switch(group.large_target())
            group.prepare(group.offers(group.large_target()))
    for thread in set(threading.enumerate()) - before:
        # Python calls threads that it has not started Dummy.
        if not thread.name.startswith("Dummy-"):
            thread.join(context.patience)
            if thread.is_alive():
                raise BrokenContractError(f"thread {thread.name!r} still runs after close")


def _aborted(group: Group) -> Offers:
    offers = group.prepare(group.offers(group.large_target()))
    group.abort(offers)
    return offers


def _received(offers: Offers) -> Mapping[tuple[int, int], int]:
    """The expert that each slot receives, by (layer, slot)."""
    rows = [row for offer in offers.values() for row in offer.receives.tolist()]
    return {(layer, slot): expert for layer, slot, expert in rows}


_BOTH = (Transfer.PULL, Transfer.COLLECTIVE)
_PULL, _COLLECTIVE = _BOTH[:1], _BOTH[1:]
_ANY = tuple(Owners)
_MANY = (Owners.EACH, Owners.SEVERAL)

_RULES = {
    "start": "a group serves by the placement that it was made with",
    "prepare": "a transfer changes nothing that is in force",
    "switch": "a flip carries out the whole switch, and frees staging",
    "swap": "two GPUs may exchange experts",
    "chain": "a copy reads what was in force before the flip",
    "hand-over": "a slot may give its expert to another while it receives one",
    "fan-out": "a GPU may need a received expert in several slots",
    "fork": "of one slot, copies may read the old expert and the received one",
    "layer": "layers that a switch does not touch do not change",
    "idle": "a rank whose slots do not change still replaces its maps",
    "abort": "an abort changes nothing, and frees staging",
    "leftover": "what an aborted switch has received is not copied to any slot",
    "stale": "a slot receives again, whatever an aborted switch has received for it",
    "unseen": "an abort may come before any transfer has begun",
    "alone": "a rank can pull without the other ranks",
    "source": "a transfer whose source is gone ends, and fails",
    "close": "close ends all threads, even if staging is full",
}
"""What each case checks."""

_CHECKS: Mapping[str, tuple[tuple[Transfer, ...], tuple[Owners, ...], _Check]] = {
    "start": (_BOTH, _ANY, _start),
    "prepare": (_BOTH, _ANY, _prepare),
    "switch": (_BOTH, _ANY, _switch),
    "swap": (_BOTH, _ANY, _has(features.swaps)),
    "chain": (_BOTH, _ANY, _has(features.chains)),
    "hand-over": (_BOTH, _ANY, _has(features.gives_and_gets)),
    "fan-out": (_BOTH, _ANY, _has(features.fans_out)),
    "fork": (_BOTH, _ANY, _has(features.forks)),
    "layer": (_BOTH, _ANY, _has(features.touches_the_last_layer_only)),
    "idle": (_BOTH, _MANY, _idle),
    "abort": (_BOTH, _ANY, _abort),
    "leftover": (_BOTH, _ANY, _after_an_abort(features.leaves_alone)),
    "stale": (_BOTH, _ANY, _after_an_abort(features.receives_anew)),
    "unseen": (_COLLECTIVE, _ANY, _unseen),
    "alone": (_PULL, _MANY, _alone),
    "source": (_PULL, _MANY, _source),
    "close": (_BOTH, _ANY, _close),
}

CASES: tuple[Case, ...] = tuple(
    Case(name, _RULES[name], transfer, owners, check)
    for name, (transfers, all_owners, check) in _CHECKS.items()
    for transfer, owners in product(transfers, all_owners)
)
"""All cases, for `pytest.mark.parametrize("case", CASES, ids=str)`."""
