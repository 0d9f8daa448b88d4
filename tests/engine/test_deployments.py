"""Deployments whose store outlives them: a restarted server goes on with what it has."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from contextlib import closing
from dataclasses import replace

import numpy as np
import pytest

from tests.engine import scene
from tests.engine.scene import OTHER, SPEC, UNTOUCHED, W0, W1
from tests.engine.scene import recorded as server
from tests.rpc.peers import counted, until
from tests.servers import make_config
from trimtab_protocol import messages
from trimtab_protocol.messages import Applied, Prepared, Refused
from trimtab_protocol.version import Version
from trimtab_server.app import App
from trimtab_server.domain import errors
from trimtab_server.domain.moves import moves_between
from trimtab_server.domain.placement import placement_of, tensor_of
from trimtab_server.domain.topology import Topology
from trimtab_server.rollout.open_switch import Phase
from trimtab_server.store.errors import StoreCorruptError, StoreError
from trimtab_server.store.sqlite import SqliteStore


def edit(folder, statement: str, *values: object) -> None:
    """Change one row of the store behind the server's back."""
    with closing(sqlite3.connect(folder / "trimtab.db")) as db, db:
        assert db.execute(statement, values).rowcount == 1


def report(seq: int, tokens: int) -> messages.Report:
    return messages.Report(seq, seq, seq, np.full((3, 8), tokens))


async def test_a_commit_survives_the_server_and_is_sent_again(tmp_path):
    async with server(tmp_path) as deployments:
        deployment, worker = await scene.joined(deployments)
        await deployment.operators.move_to(OTHER)
        version = deployment.rollout.record.switch.version
        await scene.answer(deployment, worker, Prepared)
        assert deployment.rollout.phase is Phase.COMMITTED
        term = deployments.term
    async with server(tmp_path) as deployments:
        assert deployments.term == term + 1
        held = messages.Held(version, messages.HeldState.PREPARED)
        deployment, worker = await scene.joined(deployments, in_force=Version(1, 0), held=held)
        orders = [(await worker.outbox.take())[1] for _ in ("welcome", "switch")]
        assert orders == [
            messages.Welcome(Version(1, 0), UNTOUCHED.digest),
            messages.Commit(version, OTHER.digest),
        ]
        await scene.answer(deployment, worker, Applied, 7)
        assert deployment.rollout.record.in_force == version


async def test_a_server_that_has_lost_its_store_outranks_the_one_before(tmp_path, capsys):
    async with server(tmp_path) as deployments:
        with scene.failing("outrank:before"), pytest.raises(errors.UnavailableError, match="store"):
            await scene.joined(deployments, term=6)
        assert deployments.term == 1, "and the worker tries again"
        await scene.joined(deployments, term=6, epoch=3)
        assert deployments.term == 7
        await scene.joined(deployments, "other", term=7)
        assert deployments.term == 7, "that is its own"
    alarm = "worker 'w' knows a server of term 6, but this one's term was 1: its store was lost"
    assert alarm in capsys.readouterr().out
    async with server(tmp_path) as deployments:
        assert deployments.term == 8
        assert [each.name for each in deployments.all()] == ["d", "other"]


async def test_workers_that_join_at_once_raise_the_term_once(tmp_path, capsys):
    async with server(tmp_path) as deployments:
        joins = scene.joined(deployments, term=6, **W0), scene.joined(deployments, term=7, **W1)
        await asyncio.gather(*joins)
        assert deployments.term in (7, 8)
    assert capsys.readouterr().out.count("its store was lost") == deployments.term - 6


async def test_an_impossible_term_is_refused(tmp_path):
    async with server(tmp_path) as deployments:
        with pytest.raises(errors.InvalidArgumentError, match=r"hello\.term"):
            await scene.joined(deployments, term=2 + (1 << 32))
        assert deployments.term == 1


async def test_a_session_that_begins_while_the_store_fails_leaves_nothing_behind(
    tmp_path, monkeypatch
):
    """Otherwise a group would wait forever for the session to end."""
    release = threading.Event()

    def fail_once(*_):
        monkeypatch.undo()
        release.wait()
        raise StoreError("the disk is gone")

    async with server(tmp_path) as deployments:
        deployment, _ = await scene.joined(deployments)
        monkeypatch.setattr(SqliteStore, "save", fail_once)
        pausing = asyncio.ensure_future(deployment.operators.pause("by hand"))
        pod = {"worker": "pod-7", "group_id": "g2", "gpus": (0,)}
        joining = asyncio.ensure_future(scene.joined(deployments, **pod))
        await until(lambda: len(deployment.sessions) == 2)
        release.set()
        for each in (pausing, joining):
            with pytest.raises(errors.UnavailableError):
                await each
        for session in deployment.sessions:
            deployments.leave(deployment, session)
        await deployment.wait_idle()
        assert list(deployment.rollout._sessions) == []


async def test_counts_are_saved_every_few_seconds(tmp_path):
    async with server(tmp_path, save_seconds="0.1") as deployments:
        deployment, worker = await scene.joined(deployments)
        deployment.workers.report(worker, report(1, 10))
        await until(lambda: deployments._store.store.load_counters("d"))
        [saved] = deployments._store.store.load_counters("d").values()
        assert saved.counts_LE.tolist() == [[10] * 8] * 3


async def test_an_offer_fits_the_worker_that_has_the_least_room(tmp_path):
    async with server(tmp_path) as deployments:
        for said, room in ((W0, 1), (W1, 6)):
            deployment, _ = await scene.joined(deployments, staging_slots=room, **said)
        await deployment.operators.move_to(OTHER)
        offered = deployment.rollout.record.switch.placement
        moves = moves_between(tensor_of(UNTOUCHED), tensor_of(offered), 8, 4)
        received = np.bincount(moves.layer_slot_expert[:, 1] // 3)
        assert received.max() == 1


async def test_a_pause_can_be_ended_before_any_worker_is_back(tmp_path):
    async with server(tmp_path) as deployments:
        deployment, _ = await scene.joined(deployments)
        assert await deployment.operators.pause("maintenance") is None
        assert await deployment.operators.pause("more of it") == "maintenance"
    async with server(tmp_path) as deployments:
        assert await deployments.find("d").operators.resume() == "more of it"
        assert await deployments.find("d").operators.resume() is None
        with pytest.raises(errors.NotFoundError, match="there is no deployment 'e'"):
            deployments.find("e")
        deployment, _ = await scene.joined(deployments, stream=2, in_force=Version(1, 0))
        assert deployment.rollout.blocked_reason() is None


async def test_a_worker_that_refuses_an_offer_is_not_asked_again(tmp_path):
    async with scene.serving(server(tmp_path)) as (deployment, worker):
        await deployment.operators.move_to(OTHER)
        # The only one: with the refusal the switch is aborted, and over.
        await scene.answer(deployment, worker, Refused, "no room")
        assert deployment.rollout.phase is Phase.IDLE
        assert deployment.rollout.record.last_generation == 1
        assert deployment.target is None
        await deployment.operators.move_to(OTHER)
        assert deployment.rollout.phase is Phase.OFFERED


async def test_a_rollout_that_cannot_go_on_is_abandoned_without_an_alarm(tmp_path, capsys):
    """No operator has to act: one of them has paused it, and the next plan starts anew."""
    async with scene.serving(server(tmp_path), max_layers=1) as (deployment, worker):
        await deployment.operators.move_to(OTHER)
        switch = deployment.rollout.record.switch
        assert switch.placement.digest != OTHER.digest, "it takes three"
        await scene.answer(deployment, worker, Prepared)
        await deployment.operators.pause("by hand")
        await scene.answer(deployment, worker, Applied, 7)
        assert deployment.rollout.record.in_force == switch.version
        assert deployment.target is None
    assert "the deployment is paused: by hand" in (tmp_path / "history.jsonl").read_text()
    assert "alarm" not in capsys.readouterr().out


async def test_counts_go_on_from_what_was_saved(tmp_path):
    async with server(tmp_path) as deployments:
        deployment, worker = await scene.joined(deployments)
        deployment.workers.report(worker, report(1, 10))
        await deployment.save_counters()
        # Not saved when the server dies; the next difference covers it.
        deployment.workers.report(worker, report(2, 15))
        with scene.failing("save_counters:before"):
            await deployments.close()
    async with server(tmp_path) as deployments:
        deployment, worker = await scene.joined(deployments, stream=2)
        assert deployment.workers.report(worker, report(3, 30)) == 3
        assert counted(deployment) == [[30] * 8] * 3
        assert np.allclose(deployment.load(), 10.0), "tokens a step, in each of three"


async def test_a_stored_deployment_keeps_its_sizes(tmp_path):
    async with server(tmp_path) as deployments:
        await scene.joined(deployments)
    wider = placement_of(np.array([[*range(8)] * 2]), 8, 4)
    spec = replace(SPEC, topology=Topology(16, 4), num_layers=1)
    async with server(tmp_path) as deployments:
        differs = "differs in num_replicas: 16 is not 12; num_layers: 1 is not 3"
        with pytest.raises(errors.FailedPreconditionError, match=differs):
            await scene.joined(deployments, spec=spec, placement=wider)


DAMAGES = {
    "record": ("UPDATE records SET body = 'nonsense' WHERE deployment = ?", "unsound"),
    "placement": ("UPDATE placements SET body = 'nonsense' WHERE digest = ?", OTHER.digest),
    "counters": ("UPDATE counters SET body = 'nonsense' WHERE deployment = ?", "unsound"),
}


@pytest.mark.parametrize("damage", DAMAGES)
async def test_a_deployment_that_cannot_be_read_is_named_at_the_start(tmp_path, damage):
    async with server(tmp_path) as deployments:
        await scene.joined(deployments, "sound")
        deployment, worker = await scene.joined(deployments, "unsound", placement=OTHER)
        deployment.workers.report(worker, report(1, 10))
    edit(tmp_path, *DAMAGES[damage])
    with pytest.raises(StoreCorruptError, match=r"^deployment 'unsound': store .*trimtab\.db: "):
        async with server(tmp_path):
            pass
    # It has let the store go, and the server says what setting that is.
    with pytest.raises(errors.InvalidArgumentError, match=r"^store: deployment 'unsound': "):
        async with App(make_config(store=str(tmp_path / "trimtab.db"))):
            pass


async def test_an_unreadable_deployment_raises_an_alarm_and_its_workers_retry(tmp_path):
    alarms = []
    async with server(tmp_path) as deployments:
        await scene.joined(deployments)
    # As a server leaves it that stored no specs: what it is, its workers say.
    edit(tmp_path, "DELETE FROM specs")
    async with server(tmp_path) as deployments:
        deployments.observer.alarm = lambda *said, mismatch: alarms.append(said)
        edit(tmp_path, "UPDATE records SET body = 'nonsense'")
        with pytest.raises(errors.UnavailableError, match="the server's store failed"):
            await scene.joined(deployments, stream=2)
    ((name, said),) = alarms
    assert name == "d"
    assert said.startswith("the store failed: store ")


async def test_a_deployment_stored_without_a_spec_can_be_deleted(tmp_path):
    async with server(tmp_path) as deployments:
        await scene.joined(deployments)
    edit(tmp_path, "DELETE FROM specs")
    async with server(tmp_path) as deployments:
        with scene.failing("delete:before"), pytest.raises(errors.UnavailableError, match="store"):
            await deployments.delete("d")
        await deployments.delete("d")
        with pytest.raises(errors.NotFoundError):
            await deployments.delete("d")
        assert deployments._store.store.deployments() == []


async def test_a_deployment_without_a_complete_group_is_dropped_and_leaves_nothing(tmp_path):
    async with server(tmp_path) as deployments:
        deployment, worker = await scene.joined(deployments, "half", **W0)
        deployment.workers.report(worker, report(1, 10))
        await deployment.save_counters()
        assert not deployments._store.store.load_counters("half")
        deployments.leave(deployment, worker)
        await until(lambda: not deployments.all())
        with pytest.raises(errors.NotFoundError, match="there is no deployment 'half'"):
            deployments.find("half")
        await scene.joined(deployments, "half", **W0)


async def test_counts_are_kept_of_members_and_of_connected_workers(tmp_path):
    async with server(tmp_path) as deployments:
        for group in range(3):
            said = {"group_id": f"g{group}", "worker": f"w{group}"}
            deployment, worker = await scene.joined(deployments, **said)
            deployment.workers.report(worker, report(1, 10 + group))
            deployments.leave(deployment, worker)
            await deployment.wait_idle()
        # Of the last group, though it is not here.
        assert counted(deployment) == [[12] * 8] * 3
    async with server(tmp_path) as deployments:
        assert list(deployments._store.store.load_counters("d")) == ["w2"]


async def test_a_new_incarnation_counts_anew_and_the_old_one_no_more(tmp_path):
    async with server(tmp_path) as deployments:
        sessions = []
        for incarnation, tokens in ((1, 10), (2, 3)):
            said = {"group_id": f"g{incarnation}", "incarnation": incarnation}
            deployment, worker = await scene.joined(deployments, **said)
            sessions.append(worker)
            deployment.workers.report(worker, report(1, tokens))
            await deployment.save_counters()
        with pytest.raises(errors.SessionClosedError, match="newer incarnation"):
            deployment.workers.report(sessions[0], report(2, 20))
        assert counted(deployment) == [[3] * 8] * 3
        # Saved as well, although it has reported as often.
        saved = deployments._store.store.load_counters("d")["w"]
        assert (saved.incarnation, saved.counts_LE.max()) == (2, 3)


async def test_the_timer_of_an_offer_does_not_expire_the_next_offer(tmp_path):
    async with scene.serving(server(tmp_path, offer_seconds="3600")) as (deployment, worker):
        timers = []
        for _ in range(3):
            await deployment.operators.move_to(OTHER)
            timers.append(deployment._core._expiry)
            await scene.answer(deployment, worker, Refused, "no room")
        assert [timer.cancelled() for timer in timers] == [True, True, False]
    assert timers[-1].cancelled()
