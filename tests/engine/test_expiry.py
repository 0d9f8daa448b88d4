"""Deployments that nobody uses expire. How long they have been unused outlives the server."""

from __future__ import annotations

import asyncio
import json
import random
import sqlite3
import time
from contextlib import closing
from pathlib import Path

import pytest

from tests.engine import scene
from tests.engine.engines import Engine
from tests.engine.scene import OTHER, SPEC, W0
from tests.engine.scene import recorded as server
from tests.rpc.peers import until
from trimtab_server.domain import errors
from trimtab_server.engine.config import SessionConfig
from trimtab_server.engine.expiry import reason_to_expire
from trimtab_server.engine.usage import Unused, UsagePeriods

LIMITS = SessionConfig(expire_seconds=1000.0, expire_new_seconds=100.0)
LONG = "unused for 1000.0 s (setting expire_seconds: 1000 s)"
SHORT = "unused for 100.0 s (setting expire_new_seconds: 100 s)"

CASES = {
    "in use": (Unused(0.0, is_new=True, is_wanted=False), ""),
    "not for long enough": (Unused(999.0, is_new=False, is_wanted=False), ""),
    "for long": (Unused(1000.0, is_new=False, is_wanted=False), LONG),
    "wanted": (Unused(1e9, is_new=False, is_wanted=True), ""),
    "new": (Unused(100.0, is_new=True, is_wanted=False), SHORT),
    "new, not for long enough": (Unused(99.0, is_new=True, is_wanted=False), ""),
    "new and wanted": (Unused(1e9, is_new=True, is_wanted=True), ""),
}


@pytest.mark.parametrize(("unused", "reason"), CASES.values(), ids=CASES)
def test_a_deployment_expires_by_the_limit_that_is_meant_for_it(unused, reason):
    assert reason_to_expire(unused, LIMITS, uptime=1e9) == reason


def test_nothing_expires_if_the_limits_are_0():
    never = SessionConfig(expire_seconds=0.0, expire_new_seconds=0.0)
    assert not reason_to_expire(Unused(1e12, is_new=True, is_wanted=False), never, uptime=1e12)


@pytest.mark.parametrize(("limit", "respite"), [(1000.0, 1000.0), (1e6, 86400.0)])
def test_after_a_start_workers_have_time_to_come_back(limit, respite):
    config, unused = SessionConfig(expire_seconds=limit), Unused(1e9, False, False)
    assert not reason_to_expire(unused, config, uptime=respite - 1)
    assert reason_to_expire(unused, config, uptime=respite)


@pytest.mark.parametrize("limits", [(2592000.0, 3600.0), (0.0, 0.0), (5.0, 0.0), (0.2, 0.1)])
def test_the_stored_time_is_written_seldom_and_never_makes_a_deployment_older(limits):
    """Over spells of use and of rest, with a look at each tick, as a server takes it."""
    tick, period = periods = UsagePeriods.of(*limits)
    for seed in range(20):
        choose = random.Random(seed)
        wall, last, stored, writes, used = 1e9, 1e9, 1e9 + period, 0, 0.0
        for _ in range(30):
            spell, in_use = choose.uniform(0, 40) * tick, choose.random() < 0.5
            used += spell if in_use else 0.0
            for _ in range(int(spell / tick)):
                # What happens between two looks: a call of an engine, say.
                touched = choose.random() < 0.1
                last = wall + tick if in_use else wall + tick / 2 if touched else last
                wall += tick
                used += tick if touched else 0.0
                renewed = periods.to_store(stored, wall - last, wall)
                writes, stored = writes + (renewed is not None), renewed or stored
                # A server that is killed now and started again takes it for unused since `stored`.
                assert last <= stored <= last + period + tick
        assert writes <= used / (period / 2) + 30


def test_a_time_from_a_wrong_clock_is_replaced():
    periods, now = UsagePeriods.of(1000.0), 1e9
    for wrong in (None, now + 1e8, now - 1e8):
        assert periods.to_store(wrong, 500.0, now) == now - 500.0
        assert periods.to_store(wrong, 0.0, now) == now + periods.period


def stored_until(folder: Path) -> dict[str, float | None]:
    """Until when each deployment counts as used, as the store has it."""
    with closing(sqlite3.connect(folder / "trimtab.db")) as db:
        rows = db.execute("SELECT deployment, body FROM specs").fetchall()
    return {name: json.loads(body).get("used_until") for name, body in rows}


def let_time_pass(folder: Path, seconds: float) -> None:
    """What the store of a server looks like that has been down for so long."""
    earlier = "json_set(body, '$.used_until', json_extract(body, '$.used_until') - ?)"
    with closing(sqlite3.connect(folder / "trimtab.db")) as db, db:
        db.execute(f"UPDATE specs SET body = {earlier}", (seconds,))  # noqa: S608


def unused(deployments, name: str = "d") -> float:
    return deployments.find(name).status.unused_seconds


async def left(deployments, name: str, **said) -> None:
    """A worker has come and gone."""
    deployment, worker = await scene.joined(deployments, name, **said)
    deployments.leave(deployment, worker)
    await deployment.wait_idle()


def deleted(folder: Path) -> dict[str, str]:
    """Which deployments were deleted and why, by the history."""
    lines = map(json.loads, (folder / "history.jsonl").read_text().splitlines())
    return {each["deployment"]: each["reason"] for each in lines if each["kind"] == "deleted"}


async def test_a_deployment_is_unused_while_it_has_no_session(tmp_path):
    async with server(tmp_path) as deployments:
        deployment, worker = await scene.joined(deployments)
        assert unused(deployments) == 0.0
        deployments.leave(deployment, worker)
        await until(lambda: unused(deployments) > 0.0)
        await scene.joined(deployments, stream=2)
        assert unused(deployments) == 0.0


async def test_a_worker_that_is_refused_does_not_use_the_deployment(tmp_path):
    async with server(tmp_path) as deployments:
        await left(deployments, "d")
    let_time_pass(tmp_path, 10_000.0)
    async with server(tmp_path) as deployments:
        before = unused(deployments)
        with pytest.raises(errors.FailedPreconditionError):
            await scene.joined(deployments, incarnation=0, stream=2)
        assert unused(deployments) >= before > 5000.0


async def test_the_time_unused_survives_restarts_and_nothing_is_written_meanwhile(tmp_path):
    async with server(tmp_path) as deployments:
        await left(deployments, "d")
    let_time_pass(tmp_path, 10_000.0)
    before = stored_until(tmp_path)
    for _ in range(3):
        async with server(tmp_path) as deployments:
            # By at most the six minutes that the store may be late: a tenth of an hour.
            assert unused(deployments) > 10_000.0 - 400.0
            await deployments._expiry._look_at(deployments.find("d"))
    assert stored_until(tmp_path) == before


async def test_the_store_of_an_older_server_gets_a_time(tmp_path):
    async with server(tmp_path) as deployments:
        await left(deployments, "d")
    with closing(sqlite3.connect(tmp_path / "trimtab.db")) as db, db:
        db.execute("UPDATE specs SET body = json_remove(body, '$.used_until', '$.by_operator')")
    async with server(tmp_path, expire_seconds="20") as deployments:
        assert unused(deployments) < 20.0
        assert not deployments.find("d").unused.is_new, "an operator may have created it"
        await until(lambda: stored_until(tmp_path)["d"])


async def test_a_deployment_in_use_is_stored_as_such(tmp_path):
    async with server(tmp_path) as deployments:
        await left(deployments, "d")
    let_time_pass(tmp_path, 10_000.0)
    async with server(tmp_path, expire_seconds="10") as deployments:
        _, worker = await scene.joined(deployments, stream=2)
        await until(lambda: stored_until(tmp_path)["d"] > time.time() - 100.0)
        assert worker in deployments.find("d").sessions


async def is_stored(deployments, names):
    """Wait until the store has these. What expires is in no list a moment before."""
    thread = deployments._store
    async with asyncio.timeout(60):
        while await thread.call(thread.store.deployments) != names:
            pass


async def test_unused_deployments_expire_and_those_in_use_do_not(tmp_path):
    async with server(tmp_path, expire_seconds="0.2") as deployments:
        await scene.joined(deployments, "used")
        for name in ("paused", "pinned"):
            deployment, worker = await scene.joined(deployments, name)
            act = deployment.operators
            await (act.pause("by hand") if name == "paused" else act.pin(OTHER))
            deployments.leave(deployment, worker)
        await left(deployments, "left")
        await deployments.create("waiting", SPEC, lambda policy: policy)
        await until(lambda: len(deployments.all()) == 3)
        assert sorted(each.name for each in deployments.all()) == ["paused", "pinned", "used"]
        await is_stored(deployments, ["paused", "pinned", "used"])
        await deployments.find("paused").operators.resume()
        await until(lambda: len(deployments.all()) == 2)
        await scene.joined(deployments, "left")
    reasons = deleted(tmp_path)
    assert sorted(reasons) == ["left", "paused", "waiting"]
    assert all("s (setting expire_seconds: 0.2 s)" in each for each in reasons.values())


async def test_what_never_had_a_group_expires_sooner_unless_an_operator_created_it(tmp_path):
    async with server(tmp_path, expire_new_seconds="0.2") as deployments:
        await deployments.create("waiting", SPEC, lambda policy: policy)
        await left(deployments, "served")
        for name in ("half", "claimed"):
            deployment, worker = await scene.joined(deployments, name, **W0)
            # Since an operator has changed it, it is stored.
            await deployment.operators.update_policy(lambda policy: policy)
            if name == "claimed":
                await deployments.create(name, SPEC, lambda policy: policy)
            deployments.leave(deployment, worker)
        await until(lambda: len(deployments.all()) == 3)
    async with server(tmp_path, expire_new_seconds="0.2") as deployments:
        names = [each.name for each in deployments.all()]
        assert names == ["claimed", "served", "waiting"]
        assert [deployments.find(name).unused.is_new for name in names] == [False] * 3
    assert list(deleted(tmp_path)) == ["half"]
    assert "(setting expire_new_seconds: 0.2 s)" in deleted(tmp_path)["half"]


async def test_an_operators_claim_outlives_the_workers(tmp_path):
    """Until now such a deployment was dropped with its last worker."""
    async with server(tmp_path) as deployments:
        deployment, worker = await scene.joined(deployments, **W0)
        await deployments.create("d", SPEC, lambda policy: policy)
        deployments.leave(deployment, worker)
        await deployment.wait_idle()
    async with server(tmp_path) as deployments:
        assert [each.name for each in deployments.all()] == ["d"]


async def test_an_engine_uses_its_deployment_by_calling(tmp_path):
    async with server(tmp_path) as deployments:
        await Engine(deployments).asks()
        await until(lambda: unused(deployments) > 0.0)
    let_time_pass(tmp_path, 10_000.0)
    async with server(tmp_path) as deployments:
        with pytest.raises(errors.FailedPreconditionError, match="a newer process"):
            await Engine(deployments, incarnation=0).asks()
        assert unused(deployments) > 5000.0
        await Engine(deployments, incarnation=2).asks()
        assert unused(deployments) < 5000.0


async def test_the_deployment_of_an_engine_that_has_stopped_expires(tmp_path):
    """Its session does not end with its process, and does not keep the deployment."""
    async with server(tmp_path, expire_seconds="0.2") as deployments:
        for incarnation in (1, 2):
            engine = Engine(deployments, incarnation=incarnation)
            answer = await engine.asks()
            assert answer.in_force == (1, 0), "it begins anew"
            await until(lambda: not deployments.all())
            await is_stored(deployments, [])


async def test_a_deployment_is_not_deleted_under_a_worker_or_an_engine_that_is_back(tmp_path):
    async with server(tmp_path) as deployments:
        await left(deployments, "d")
        engine = Engine(deployments, name="e")
        await engine.asks()
        deployments._expiry.reason = lambda each: "expired" if each.unused.seconds else ""
        for name in ("d", "e"):
            await until(lambda name=name: unused(deployments, name) > 0.0)
        async with engine.deployment.engine._executor.exclusive():
            async with deployments._creating:
                # Both have expired, and are deleted once it is their turn.
                deleting = [asyncio.ensure_future(deployments._delete_expired(n)) for n in "de"]
                await asyncio.sleep(0)
                _, worker = await scene.joined(deployments, stream=2)
                asking = asyncio.ensure_future(engine.asks())
                await until(lambda: unused(deployments, "e") == 0.0)
            await asyncio.gather(*deleting)
        assert (await asking).in_force == (1, 0)
        assert [each.name for each in deployments.all()] == ["d", "e"]
        assert worker in deployments.find("d").sessions
    assert deleted(tmp_path) == {}


async def test_a_store_that_fails_is_told_and_tried_again(tmp_path):
    alarms = []
    async with server(tmp_path, expire_seconds="0.2") as deployments:
        deployments.observer.alarm = lambda *said, mismatch: alarms.append(said)
        with scene.failing("delete:before"):
            await left(deployments, "d")
            await until(lambda: alarms)
            assert [each.name for each in deployments.all()] == ["d"]
        await until(lambda: not deployments.all())
        with scene.failing("save_spec:before"):
            alarms.clear()
            deployment, _ = await scene.joined(deployments, "e", **W0)
            deployment._core.store._stored = deployment._core.store.definition
            await until(lambda: alarms)
        assert "its last use was not stored" in alarms[0][1]
