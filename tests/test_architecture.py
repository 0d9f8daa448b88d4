"""ARCHITECTURE.md answers five questions; each is asked of the running code here."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from types import FrameType

import numpy as np
import pytest

from tests.client.worker.test_proposal import offered as offer_of
from tests.engine.test_rebalancer import planner, rebalancer, view
from tests.rollout.scene import offered
from trimtab_client import Placement, Topology, WorkerOptions
from trimtab_client.worker.context import SessionContext
from trimtab_client.worker.effect_runner import EffectRunner
from trimtab_client.worker.proposal import check_offer
from trimtab_client.worker.switch import Prepare
from trimtab_protocol.messages import Abort, Report
from trimtab_server.domain import topology as domain
from trimtab_server.domain.errors import InvalidArgumentError
from trimtab_server.loads.counters import Counters
from trimtab_server.policy.decide import MOVES
from trimtab_server.rollout.differences import Differences
from trimtab_server.rollout.effects import Send

__all__ = ["planner"]

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "ARCHITECTURE.md").read_text()
ANSWERS = {
    question: (ROOT / path, name)
    for question, path, name in re.findall(
        r"^\| (.+\?) \| `(.+?)`: `(.+?)` \|$", PAGE, re.MULTILINE
    )
}
PLACEMENTS = [Placement.of([row], 4, 2) for row in ([0, 1, 2, 3], [2, 1, 0, 3])]

Place = tuple[Path, str]


@contextmanager
def calls() -> Iterator[set[Place]]:
    """File and name of each function that is called meanwhile on this thread."""
    seen: set[Place] = set()

    def profile(frame: FrameType, event: str, arg: object) -> None:
        if event == "call":
            seen.add((Path(frame.f_code.co_filename), frame.f_code.co_name))

    before = sys.getprofile()
    sys.setprofile(profile)
    try:
        yield seen
    finally:
        sys.setprofile(before)


def test_there_are_five_questions() -> None:
    assert len(ANSWERS) == 5


def test_a_report_is_refused_where_the_page_says() -> None:
    counters = Counters(1, 1, 2)
    counters.take(Report(1, 0, 0, np.array([[5, 5]])))

    with pytest.raises(InvalidArgumentError, match="4 is below 5") as refused:
        counters.take(Report(2, 1, 1, np.array([[4, 5]])))

    running = {(Path(each.path), each.frame.code.name) for each in refused.traceback}
    assert ANSWERS["Where is a report refused?"] in running


def test_a_switch_is_aborted_where_the_page_says_when_a_session_is_lost() -> None:
    rollout = offered()

    with calls() as called:
        effects = rollout.left(1)

    assert [effect.order for effect in effects if isinstance(effect, Send)] == [Abort((1, 1))]
    assert ANSWERS["Where is a switch aborted when a session is lost?"] in called


async def test_a_plan_is_judged_where_the_page_says(planner) -> None:
    loop = await rebalancer(planner)

    with calls() as called:
        plan = await loop.decide(*view(100))

    assert plan.decision.reason in MOVES
    assert ANSWERS["Where is a plan judged?"] in called


def test_a_metrics_help_is_written_where_the_page_says() -> None:
    path, name = ANSWERS["Where is a metric's help written?"]
    module = import_module(".".join(path.relative_to(ROOT / "server").with_suffix("").parts))

    (alarms,) = [each for each in getattr(module, name) if each.name == "trimtab_alarms_total"]
    assert alarms.help.split(":")[0] in path.read_text()


def test_an_engines_callback_is_called_where_the_page_says() -> None:
    base, new = PLACEMENTS
    gpus = (0, 1)
    options = WorkerOptions(
        deployment="d",
        worker="w",
        topology=Topology(4, 2),
        placement=base,
        scope="local",
        bytes_per_expert=1,
    )
    transfers = Differences.between(base, new, domain.Topology(4, 2), 1).for_worker(gpus)
    offer = check_offer(offer_of(transfers, base, new), base, gpus, 1, 0)
    context = SessionContext(options, lambda job: None, lambda: 0.0)
    before: set[Place] = set()

    with calls() as called:
        runner = EffectRunner(context, lambda _: before.update(called), lambda _: None, None)
        runner.run(None, [Prepare(offer)])

    assert ANSWERS["Where is an engine's `on_offer` called?"] in before
