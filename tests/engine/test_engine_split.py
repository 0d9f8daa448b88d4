"""Engines that split each batch over replicas: nothing moves for what that evens out."""

from __future__ import annotations

import numpy as np
import pytest

from tests.engine import scene
from tests.engine.engines import Engine
from tests.engine.scene import SKEWED, UNTOUCHED
from trimtab_protocol.messages import Split
from trimtab_server.domain.balance import imbalance
from trimtab_server.engine.gpu_loads import best_loads, even_loads

# GPU 1 has experts 4 and 5 alone, and shares 3 with GPU 3. With even shares it has 40, with the
# best ones each GPU has 30.
EVEN_ONLY_BY_THE_BEST_SPLIT = np.tile([30, 15, 15, 20, 15, 15, 5, 5], (3, 1)) * 10_000


def imbalance_of(predict, placement, load_LE):
    return float(imbalance(predict(placement, load_LE / 100)).mean())


async def test_what_the_split_evens_out_moves_nothing(tmp_path):
    load = EVEN_ONLY_BY_THE_BEST_SPLIT
    assert imbalance_of(even_loads, UNTOUCHED, load) == pytest.approx(4 / 3)
    assert imbalance_of(best_loads, UNTOUCHED, load) == pytest.approx(1.0, abs=1e-5)
    async with scene.recorded(tmp_path, balance="active") as deployments:
        even, best = (Engine(deployments, name=each, split=each) for each in Split)
        assert (await even.asks(load)).logged.decision.moves
        answer = await best.asks(load)
        assert (answer.switch, answer.kept_because) == (None, "balanced")
        assert answer.logged.decision.candidate.before == pytest.approx(1.0, abs=1e-5)
        predicted = [each.deployment.status.balance.predicted.mean for each in (even, best)]
        assert predicted == pytest.approx([4 / 3, 1.0], abs=1e-5)


async def test_what_it_cannot_even_out_moves_experts_until_it_can(tmp_path):
    async with scene.recorded(tmp_path, balance="active") as deployments:
        engine = Engine(deployments, split=Split.BEST)
        before = imbalance_of(best_loads, UNTOUCHED, SKEWED)
        first = await engine.obeys(SKEWED)
        assert first.logged.decision.candidate.before == pytest.approx(before)
        reached = imbalance_of(best_loads, engine.placement, SKEWED)
        assert first.logged.decision.candidate.after == pytest.approx(reached)
        for _ in range(5):
            answer = await engine.obeys(SKEWED)
        assert answer.switch is None
        after = imbalance_of(best_loads, engine.placement, SKEWED)
        assert after < before - 0.1


async def test_an_engine_that_begins_to_split_is_judged_by_that(tmp_path):
    async with scene.recorded(tmp_path, balance="active") as deployments:
        engine = Engine(deployments)
        load = EVEN_ONLY_BY_THE_BEST_SPLIT
        assert (await engine.asks(load)).switch is not None
        engine.setup = engine.setup._replace(split=Split.BEST)
        answer = await engine.asks(load)
        assert (answer.switch, answer.kept_because) == (None, "balanced")
