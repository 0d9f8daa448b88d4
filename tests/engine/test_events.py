"""The events of deployments, as an observer sees them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import numpy as np
import pytest

from tests.engine import scene
from tests.engine.scene import OTHER
from tests.recording import Recording
from trimtab_protocol.messages import Applied, Discarded, Prepared, Refused, Report
from trimtab_server.domain.errors import InvalidArgumentError, UnavailableError
from trimtab_server.engine.observer import Observer, Observers, RolloutSummary
from trimtab_server.history.config import HistoryConfig
from trimtab_server.history.history import History
from trimtab_server.rollout.effects import Cause
from trimtab_server.store.memory import MemoryDisk

_TOLD = (
    *("switch_progressed", "switch_aborted", "report_handled"),
    *("answer_ignored", "alarm", "store_failed"),
)


class Watching(Observer):
    """Remembers its events: each with the deployment, and what it says first of it."""

    def __init__(self) -> None:
        self.told: list[tuple[Any, ...]] = []
        self.summaries: dict[str, RolloutSummary] = {}
        for event in _TOLD:
            setattr(self, event, partial(self._tell, event))

    def _tell(self, event: str, *said: Any, **_: Any) -> None:
        self.told.append((event, *said[:2]))

    def rollout_changed(self, deployment: str, summary: RolloutSummary) -> None:
        self.summaries[deployment] = summary

    def deployment_closed(self, deployment: str) -> None:
        del self.summaries[deployment]


def progressed(*outcomes: str) -> list[tuple[str, str, str]]:
    return [("switch_progressed", "d", outcome) for outcome in outcomes]


@asynccontextmanager
async def server(disk: MemoryDisk | None = None, **settings: Any) -> AsyncIterator[Any]:
    """A server on a disk, and its observer."""
    watching = Watching()
    observers = Observers(History(HistoryConfig()), watching)
    async with scene.server(disk, observers, **settings) as deployments:
        yield deployments, watching


async def test_the_summary_follows_a_switch_from_offer_to_flip():
    async with server() as (deployments, watching):
        deployment, worker = await scene.joined(deployments)
        assert watching.summaries == {"d": RolloutSummary(1, "idle", None, None)}
        await deployment.operators.move_to(OTHER)
        version = deployment.rollout.record.switch.version
        assert watching.summaries["d"] == RolloutSummary(1, "offered", version, None)
        await scene.answer(deployment, worker, Prepared)
        assert watching.summaries["d"] == RolloutSummary(1, "committed", version, None)
        await scene.answer(deployment, worker, Applied, 7)
        assert watching.summaries["d"] == RolloutSummary(1, "idle", None, None)
        await deployment.operators.pause("an operator asked")
        assert watching.summaries["d"] == RolloutSummary(1, "idle", None, "an operator asked")
        deployments.leave(deployment, worker)
        await deployment.wait_idle()
        assert watching.summaries["d"] == RolloutSummary(0, "idle", None, "an operator asked")
    assert watching.told == progressed("offered", "committed", "applied")
    assert watching.summaries == {}


async def test_a_durable_flip_is_told_even_if_the_next_offer_cannot_be_saved():
    recording = Recording()
    async with scene.server(observer=recording) as deployments:
        deployment, worker = await scene.joined(deployments, max_layers=1)
        await deployment.operators.move_to(OTHER)
        await scene.answer(deployment, worker, Prepared)
        with scene.failing("save:before", "@2"), pytest.raises(UnavailableError):
            await scene.answer(deployment, worker, Applied, 7)
        assert deployment.durable.in_force.generation == 1
        await recording.until("placement_applied", "d", 8, 800)


@pytest.mark.parametrize("cause", ["refused", "late", "lost", "paused", "drain"])
async def test_why_a_switch_was_aborted(cause):
    seconds = "0.1" if cause == "late" else "60"
    async with server(offer_seconds=seconds) as (deployments, watching):
        deployment, worker = await scene.joined(deployments)
        await deployment.operators.move_to(OTHER)
        match cause:
            case "refused":
                await scene.answer(deployment, worker, Refused, "no room")
            case "late":
                while deployment.rollout.phase.value == "offered":
                    await deployment.changed()
            case "lost":
                deployments.leave(deployment, worker)
                await deployment.wait_idle()
            case "paused":
                await deployment.operators.pause("an operator asked")
            case "drain":
                deployments.leave(*await scene.joined(deployments, "other"))
                await deployments.drain()
        aborted = ("switch_aborted", "d", Cause(cause))
        assert watching.told == [*progressed("offered", "aborted"), aborted]
        assert watching.summaries["d"].phase == ("idle" if cause == "refused" else "aborting")


async def test_a_starting_server_reports_the_switch_that_the_restart_aborted():
    disk = MemoryDisk()
    async with server(disk) as (deployments, watching):
        deployment, _ = await scene.joined(deployments)
        await deployment.operators.move_to(OTHER)
        version = deployment.rollout.record.switch.version
        disk.crash()
    async with server(disk) as (deployments, watching):
        await scene.joined(deployments, stream=2, in_force=version._replace(generation=0))
        assert watching.told == [*progressed("aborted"), ("switch_aborted", "d", Cause.RESTART)]
        assert watching.summaries["d"].phase == "idle"  # it says that it holds nothing


async def test_the_results_of_reports_and_answers_are_reported():
    async with server() as (deployments, watching):
        deployment, worker = await scene.joined(deployments)

        def say(seq: int, tokens: int) -> int:
            return deployment.workers.report(worker, Report(seq, seq, seq, np.full((3, 8), tokens)))

        say(1, 10)
        say(1, 10)
        with pytest.raises(InvalidArgumentError):
            say(2, 9)
        await deployment.workers.answer(worker, Discarded(deployment.rollout.record.in_force))
        other, stranger = await scene.joined(deployments, "e")
        other.workers.report(stranger, Report(7, 7, 7, np.full((3, 8), 5)))
    assert watching.told == [
        ("report_handled", "d", "accepted"),
        ("report_handled", "d", "repeated"),
        ("report_handled", "d", "refused"),
        ("answer_ignored", "d"),
        ("report_handled", "e", "gap"),
    ]


@pytest.mark.parametrize("at", ["save", "save_counters"])
async def test_a_failure_of_the_store_is_reported(at):
    async with server(save_seconds="0.1") as (deployments, watching):
        deployment, worker = await scene.joined(deployments)
        deployment.workers.report(worker, Report(1, 1, 1, np.full((3, 8), 1)))
        watching.told.clear()
        with scene.failing(f"{at}:before"):
            if at == "save":
                with pytest.raises(UnavailableError):
                    await deployment.operators.pause("an operator asked")
            else:
                await deployments._periodic.save_all()
    assert [each[:2] for each in watching.told[:2]] == [("store_failed",), ("alarm", "d")]
