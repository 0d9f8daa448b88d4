"""Forward passes of several ranks in one process: wrong maps or weights give wrong numbers."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from trimtab_client import Placement
from trimtab_tools.simulate.checkpoint import Checkpoint
from trimtab_tools.simulate.forward_pass import ForwardPass, StepResult
from trimtab_tools.simulate.options import FleetOptions
from trimtab_tools.simulate.targets import RandomTargets

OPTIONS = FleetOptions(ranks=3, layers=2, experts=5, hidden=8, tokens=7)
WAIT = 30


class Ranks:
    """Threads that run a step together, with weights and maps that a test may spoil."""

    def __init__(self, options: FleetOptions, placement: Placement) -> None:
        self.options = options
        self.checkpoint = Checkpoint(options.seed, options.hidden)
        self.maps = [placement] * options.ranks
        self.weights = {
            (layer, slot): self.checkpoint.weights(layer, expert)
            for layer, row_R in enumerate(placement.phy2log)
            for slot, expert in enumerate(row_R)
        }
        self.computed: list[tuple[int, int]] = []
        self._all = threading.Barrier(options.ranks)
        self._parts: dict[int, list[bytes]] = {}

    def step(self, number: int) -> list[StepResult]:
        done: list[StepResult | None] = [None] * self.options.ranks

        def take(rank: int) -> None:
            forward = ForwardPass(
                self.options, rank, self.checkpoint, self._compute, self._exchange_of(rank)
            )
            done[rank] = forward.step(number, self.maps[rank])

        threads = [threading.Thread(target=take, args=(r,)) for r in range(self.options.ranks)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(WAIT)
        return [step for step in done if step is not None]

    def _compute(self, layer, slot, tokens):
        self.computed += [(layer, slot)] * len(tokens)
        return tokens @ self.weights[layer, slot]

    def _exchange_of(self, rank):
        def exchange(what, parts):
            self._parts[rank] = parts
            self._all.wait(WAIT)
            got = [self._parts[other][rank] for other in range(self.options.ranks)]
            self._all.wait(WAIT)
            return got

        return exchange


@pytest.fixture(params=range(3))
def ranks(request) -> Ranks:
    options = FleetOptions(**{**vars(OPTIONS), "seed": request.param})
    return Ranks(options, RandomTargets(options).after(options.untouched))


def test_right_weights_and_maps_give_no_wrong_token(ranks: Ranks):
    for number in range(3):
        steps = ranks.step(number)
        assert [(step.tokens, step.wrong, step.example) for step in steps] == [(14, 0, "")] * 3


def test_counts_are_the_tokens_that_slots_have_computed(ranks: Ranks):
    counts_LR = np.concatenate([step.counts_LS for step in ranks.step(1)], axis=1)

    expected_LR = np.zeros_like(counts_LR)
    np.add.at(expected_LR, tuple(np.array(ranks.computed).T), 1)
    np.testing.assert_array_equal(counts_LR, expected_LR)
    assert counts_LR.sum() == 3 * 14


def test_wrong_weights_in_a_slot_make_each_of_its_tokens_wrong(ranks: Ranks):
    ranks.step(0)
    spoiled = max(ranks.computed, key=ranks.computed.count)
    ranks.computed.clear()
    ranks.weights[spoiled] = ranks.weights[spoiled] * np.float32(-1)
    steps = ranks.step(0)

    assert sum(step.wrong for step in steps) == ranks.computed.count(spoiled) > 0
    layer, slot = spoiled
    examples = [step.example for step in steps if step.wrong]
    assert all(f"of layer {layer}, in slot {slot} by" in example for example in examples)


def test_a_rank_with_old_maps_gets_wrong_tokens(ranks: Ranks):
    rows_LR = ranks.maps[0].phy2log.copy()
    rows_LR = np.roll(rows_LR, 1, axis=1)
    ranks.maps[1] = Placement.of(rows_LR, ranks.options.experts, ranks.options.ranks)
    wrong = [step.wrong for step in ranks.step(0)]

    assert wrong[0] == wrong[2] == 0
    assert wrong[1] > 0
