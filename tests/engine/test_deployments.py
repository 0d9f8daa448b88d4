"""Deployments whose store outlives them: a restarted server goes on with what it has."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from typing import Any

import numpy as np
import pytest

from tests.rpc.peers import AFTER, BEFORE, counted, until
from tests.servers import make_config
from trimtab_protocol.messages import (
    Applied,
    Commit,
    Held,
    HeldState,
    Hello,
    Prepared,
    Refused,
    Report,
    Welcome,
)
from trimtab_protocol.version import Version
from trimtab_server.app import App
from trimtab_server.domain.errors import (
    FailedPreconditionError,
    InvalidArgumentError,
    NotFoundError,
    ResourceExhaustedError,
    SessionClosedError,
    UnavailableError,
)
from trimtab_server.domain.moves import moves_between
from trimtab_server.domain.placement import placement_of, tensor_of
from trimtab_server.domain.topology import Topology
from trimtab_server.engine.deployment_spec import DeploymentSpec
from trimtab_server.engine.deployments import Deployments
from trimtab_server.engine.join_request import JoinRequest
from trimtab_server.engine.store_thread import StoreThread
from trimtab_server.history.config import HistoryConfig
from trimtab_server.history.history import History
from trimtab_server.rollout.open_switch import Phase
from trimtab_server.store.errors import StoreCorruptError, StoreError
from trimtab_server.store.failpoints import configure
from trimtab_server.store.sqlite import SqliteStore
from trimtab_tools.history import check_history, read_history

SPEC = DeploymentSpec(Topology(6, 2), 2, 4, "local", "pull", 100)


def join_request(
    name: str = "d", spec: DeploymentSpec = SPEC, stream: int = 1, max_layers: int = 0, **said: Any
) -> JoinRequest:
    """One worker that owns both GPUs."""
    hello = Hello("g", "w", 1, stream, (0, 1), said.pop("serves", BEFORE), **said)
    return JoinRequest(name, spec, hello, 6, max_layers)


@asynccontextmanager
async def server(folder, **settings) -> AsyncIterator[Deployments]:
    """A server with its store and its history in the folder."""
    config = make_config(**settings).sessions
    history = History(HistoryConfig(str(folder / "history.jsonl")))
    store = StoreThread(lambda: SqliteStore(folder / "trimtab.db"))
    deployments = Deployments(config, store, history)
    await deployments.open()
    try:
        yield deployments
    finally:
        await deployments.close()
        history.close()


def verdict(folder) -> list[str]:
    with (folder / "history.jsonl").open("rb") as lines:
        return [str(violation) for violation in check_history(read_history(lines)).violations]


def report(seq: int, tokens: int) -> Report:
    return Report(seq, seq, seq, np.full((2, 4), tokens))


async def test_a_commit_survives_the_server_and_is_sent_again(tmp_path):
    async with server(tmp_path) as deployments:
        deployment, worker = await deployments.join(join_request())
        await deployment.operators.move_to(AFTER)
        version = deployment.rollout.record.switch.version
        await deployment.workers.answer(worker, Prepared(version, AFTER.digest))
        assert deployment.rollout.phase is Phase.COMMITTED
        term = deployments.term
    async with server(tmp_path) as deployments:
        assert deployments.term == term + 1
        held = Held(version, HeldState.PREPARED)
        deployment, worker = await deployments.join(join_request(in_force=Version(1, 0), held=held))
        orders = [(await worker.outbox.take())[1] for _ in ("welcome", "switch")]
        assert orders == [Welcome(Version(1, 0), BEFORE.digest), Commit(version, AFTER.digest)]
        await deployment.workers.answer(worker, Applied(version, AFTER.digest, 7))
        assert deployment.rollout.record.in_force == version
    assert verdict(tmp_path) == []


async def test_a_server_that_has_lost_its_store_outranks_the_one_before(tmp_path, capsys):
    async with server(tmp_path) as deployments:
        await deployments.join(join_request(term=6, epoch=3))
        assert deployments.term == 7
        await deployments.join(join_request("other", term=7))
        assert deployments.term == 7, "that is its own"
    alarm = "worker 'w' knows a server of term 6, but this one's term was 1: its store was lost"
    assert alarm in capsys.readouterr().out
    async with server(tmp_path) as deployments:
        assert deployments.term == 8
        assert [each.name for each in deployments.all()] == ["d", "other"]
    assert verdict(tmp_path) == []


async def test_a_worker_is_told_to_retry_if_its_term_cannot_be_outranked(tmp_path):
    async with server(tmp_path) as deployments:
        configure("outrank:before=error")
        try:
            with pytest.raises(UnavailableError, match="store failed"):
                await deployments.join(join_request(term=6))
        finally:
            configure("")
        assert deployments.term == 1
        await deployments.join(join_request(term=6))
        assert deployments.term == 7


async def test_workers_that_join_at_once_raise_the_term_once(tmp_path, capsys):
    async with server(tmp_path) as deployments:
        hellos = [Hello("g", f"w{gpu}", 1, 1, (gpu,), BEFORE, term=6 + gpu) for gpu in range(2)]
        await asyncio.gather(*(deployments.join(JoinRequest("d", SPEC, h, 6, 0)) for h in hellos))
        assert deployments.term in (7, 8)
    assert verdict(tmp_path) == []
    assert capsys.readouterr().out.count("its store was lost") == deployments.term - 6


async def test_an_impossible_term_is_refused(tmp_path):
    async with server(tmp_path) as deployments:
        with pytest.raises(InvalidArgumentError, match=r"hello\.term"):
            await deployments.join(join_request(term=2 + (1 << 32)))
        assert deployments.term == 1


class SavesFail(SqliteStore):
    """The save that `release` is set for waits for it, then fails."""

    release: threading.Event | None = None

    def save(self, deployment, record):
        release, SavesFail.release = SavesFail.release, None
        if release is not None:
            release.wait()
            raise StoreError("the disk is gone")
        super().save(deployment, record)


async def test_a_session_that_begins_while_the_store_fails_leaves_nothing_behind(tmp_path):
    """Otherwise a group would wait forever for the session to end."""
    history, store = History(HistoryConfig()), StoreThread(lambda: SavesFail(tmp_path / "db"))
    deployments = Deployments(make_config().sessions, store, history)
    await deployments.open()
    deployment, _ = await deployments.join(join_request())
    release = SavesFail.release = threading.Event()
    pausing = asyncio.ensure_future(deployment.operators.pause("by hand"))
    hello = Hello("g2", "pod-7", 1, 1, (0,), BEFORE)
    joining = asyncio.ensure_future(deployments.join(JoinRequest("d", SPEC, hello, 6, 0)))
    await until(lambda: len(deployment.sessions) == 2)
    release.set()
    for each in (pausing, joining):
        with pytest.raises(UnavailableError):
            await each
    for session in deployment.sessions:
        deployments.leave(deployment, session)
    await deployment.wait_idle()
    assert list(deployment.rollout._sessions) == []
    await deployments.close()
    history.close()


async def test_counts_are_saved_every_few_seconds(tmp_path):
    async with server(tmp_path, save_seconds="0.1") as deployments:
        deployment, worker = await deployments.join(join_request())
        deployment.workers.report(worker, report(1, 10))
        await until(lambda: deployments._store.store.load_counters("d"))
        [saved] = deployments._store.store.load_counters("d").values()
        assert saved.counts_LE.tolist() == [[10] * 4] * 2


async def test_an_offer_fits_the_worker_that_has_the_least_room(tmp_path):
    async with server(tmp_path) as deployments:
        for gpu, room in enumerate((1, 6)):
            hello = Hello("g", f"w{gpu}", 1, 1, (gpu,), BEFORE)
            deployment, _ = await deployments.join(JoinRequest("d", SPEC, hello, room, 0))
        await deployment.operators.move_to(AFTER)
        offered = deployment.rollout.record.switch.placement
        moves = moves_between(tensor_of(BEFORE), tensor_of(offered), 4, 2)
        received = np.bincount(moves.layer_slot_expert[:, 1] // 3, minlength=2)
        assert received.max() == 1


async def test_a_pause_can_be_ended_before_any_worker_is_back(tmp_path):
    async with server(tmp_path) as deployments:
        deployment, _ = await deployments.join(join_request())
        assert await deployment.operators.pause("maintenance") is None
        assert await deployment.operators.pause("more of it") == "maintenance"
    async with server(tmp_path) as deployments:
        assert await deployments.find("d").operators.resume() == "more of it"
        assert await deployments.find("d").operators.resume() is None
        with pytest.raises(NotFoundError, match="there is no deployment 'e'"):
            deployments.find("e")
        deployment, _ = await deployments.join(join_request(stream=2, in_force=Version(1, 0)))
        assert deployment.rollout.blocked_reason() is None
    assert verdict(tmp_path) == []


async def test_a_worker_that_refuses_an_offer_is_not_asked_again(tmp_path):
    async with server(tmp_path) as deployments:
        deployment, worker = await deployments.join(join_request())
        await deployment.operators.move_to(AFTER)
        version = deployment.rollout.record.switch.version
        # The only one: with the refusal the switch is aborted, and over.
        await deployment.workers.answer(worker, Refused(version, AFTER.digest, "no room"))
        assert deployment.rollout.phase is Phase.IDLE
        assert deployment.rollout.record.last_generation == 1
        assert deployment.driver.staged.target is None
        await deployment.operators.move_to(AFTER)
        assert deployment.rollout.phase is Phase.OFFERED
    assert verdict(tmp_path) == []


async def test_a_rollout_that_cannot_go_on_is_abandoned_without_an_alarm(tmp_path, capsys):
    """No operator has to act: one of them has paused it, and the next plan starts anew."""
    async with server(tmp_path) as deployments:
        deployment, worker = await deployments.join(join_request(max_layers=1))
        await deployment.operators.move_to(AFTER)
        switch = deployment.rollout.record.switch
        digest = switch.placement.digest
        assert digest != AFTER.digest, "it takes two"
        await deployment.workers.answer(worker, Prepared(switch.version, digest))
        await deployment.operators.pause("by hand")
        await deployment.workers.answer(worker, Applied(switch.version, digest, 7))
        assert deployment.rollout.record.in_force == switch.version
        assert deployment.driver.staged.target is None
    assert "the deployment is paused: by hand" in (tmp_path / "history.jsonl").read_text()
    assert "alarm" not in capsys.readouterr().out
    assert verdict(tmp_path) == []


async def test_counts_go_on_from_what_was_saved(tmp_path):
    async with server(tmp_path) as deployments:
        deployment, worker = await deployments.join(join_request())
        deployment.workers.report(worker, report(1, 10))
        await deployment.save_counters()
        # Not saved when the server dies; the next difference covers it.
        configure("save_counters:before=error")
        deployment.workers.report(worker, report(2, 15))
        try:
            await deployments.close()
        finally:
            configure("")
    async with server(tmp_path) as deployments:
        deployment, worker = await deployments.join(join_request(stream=2))
        assert deployment.workers.report(worker, report(3, 30)) == 3
        assert counted(deployment) == [[30] * 4] * 2
        assert np.allclose(deployment.loads.load(), 10.0), "tokens a step, in each of three"
    assert verdict(tmp_path) == []


async def test_a_stored_deployment_keeps_its_sizes(tmp_path):
    async with server(tmp_path) as deployments:
        await deployments.join(join_request())
    wider = placement_of(np.array([[0, 1, 2, 3] * 2]), 4, 2)
    spec = DeploymentSpec(Topology(8, 2), 1, 4, "local", "pull", 100)
    async with server(tmp_path) as deployments:
        with pytest.raises(
            FailedPreconditionError,
            match="differs in num_replicas: 8 is not 6; num_layers: 1 is not 2",
        ):
            await deployments.join(join_request(spec=spec, serves=wider))


async def test_more_deployments_than_the_limit_are_refused(tmp_path):
    async with server(tmp_path, max_deployments=1) as deployments:
        await deployments.join(join_request("one"))
        with pytest.raises(ResourceExhaustedError, match="1 deployments are"):
            await deployments.join(join_request("two"))


DAMAGES = {
    "record": ("UPDATE records SET body = 'nonsense' WHERE deployment = ?", "unsound"),
    "placement": ("UPDATE placements SET body = 'nonsense' WHERE digest = ?", AFTER.digest),
    "counters": ("UPDATE counters SET body = 'nonsense' WHERE deployment = ?", "unsound"),
}


@pytest.mark.parametrize("damage", DAMAGES)
async def test_a_deployment_that_cannot_be_read_is_named_at_the_start(tmp_path, damage):
    async with server(tmp_path) as deployments:
        await deployments.join(join_request("sound"))
        deployment, worker = await deployments.join(join_request("unsound", serves=AFTER))
        deployment.workers.report(worker, report(1, 10))
    statement, which = DAMAGES[damage]
    with closing(sqlite3.connect(tmp_path / "trimtab.db")) as db, db:
        assert db.execute(statement, (which,)).rowcount == 1
    with pytest.raises(StoreCorruptError, match=r"^deployment 'unsound': store .*trimtab\.db: "):
        async with server(tmp_path):
            pass
    # It has let the store go, and the server says what setting that is.
    with pytest.raises(InvalidArgumentError, match=r"^store: deployment 'unsound': "):
        async with App(make_config(store=str(tmp_path / "trimtab.db"))):
            pass


async def test_an_unreadable_deployment_raises_an_alarm_and_its_workers_retry(
    tmp_path,
):
    alarms = []
    async with server(tmp_path) as deployments:
        await deployments.join(join_request())
    # As a server leaves it that stored no specs: what it is, its workers say.
    with closing(sqlite3.connect(tmp_path / "trimtab.db")) as db, db:
        db.execute("DELETE FROM specs")
    async with server(tmp_path) as deployments:
        deployments.observer.alarm = lambda *said, mismatch: alarms.append(said)
        with closing(sqlite3.connect(tmp_path / "trimtab.db")) as db, db:
            db.execute("UPDATE records SET body = 'nonsense'")
        with pytest.raises(UnavailableError, match="the server's store failed"):
            await deployments.join(join_request(stream=2))
    ((name, said),) = alarms
    assert name == "d"
    assert said.startswith("the store failed: store ")


async def test_a_deployment_stored_without_a_spec_can_be_deleted(tmp_path):
    async with server(tmp_path) as deployments:
        await deployments.join(join_request())
    with closing(sqlite3.connect(tmp_path / "trimtab.db")) as db, db:
        db.execute("DELETE FROM specs")
    async with server(tmp_path) as deployments:
        configure("delete:before=error")
        try:
            with pytest.raises(UnavailableError, match="store failed"):
                await deployments.delete("d")
        finally:
            configure("")
        await deployments.delete("d")
        with pytest.raises(NotFoundError):
            await deployments.delete("d")
        assert deployments._store.store.deployments() == []


async def test_a_deployment_without_a_complete_group_is_dropped_and_leaves_nothing(tmp_path):
    half = Hello("g", "w", 1, 1, (0,), BEFORE)
    async with server(tmp_path) as deployments:
        deployment, worker = await deployments.join(JoinRequest("half", SPEC, half, 6, 0))
        deployment.workers.report(worker, report(1, 10))
        await deployment.save_counters()
        assert not deployments._store.store.load_counters("half")
        deployments.leave(deployment, worker)
        await until(lambda: not deployments.all())
        with pytest.raises(NotFoundError, match="there is no deployment 'half'"):
            deployments.find("half")
        await deployments.join(JoinRequest("half", SPEC, half, 6, 0))


async def test_counts_are_kept_of_members_and_of_connected_workers(tmp_path):
    async with server(tmp_path) as deployments:
        for group in range(3):
            hello = Hello(f"g{group}", f"w{group}", 1, 1, (0, 1), BEFORE)
            deployment, worker = await deployments.join(JoinRequest("d", SPEC, hello, 6, 0))
            deployment.workers.report(worker, report(1, 10 + group))
            deployments.leave(deployment, worker)
            await deployment.wait_idle()
        # Of the last group, though it is not here.
        assert counted(deployment) == [[12] * 4] * 2
    async with server(tmp_path) as deployments:
        assert list(deployments._store.store.load_counters("d")) == ["w2"]
    assert verdict(tmp_path) == []


async def test_a_new_incarnation_is_saved_even_after_as_many_reports(tmp_path):
    async with server(tmp_path) as deployments:
        for incarnation, tokens in ((1, 10), (2, 3)):
            hello = Hello(f"g{incarnation}", "w", incarnation, 1, (0, 1), BEFORE)
            deployment, worker = await deployments.join(JoinRequest("d", SPEC, hello, 6, 0))
            deployment.workers.report(worker, report(1, tokens))
            await deployment.save_counters()
        saved = deployments._store.store.load_counters("d")["w"]
        assert (saved.incarnation, saved.counts_LE.max()) == (2, 3)


async def test_an_old_incarnation_cannot_report_after_a_new_one(tmp_path):
    async with server(tmp_path) as deployments:
        deployment, old = await deployments.join(join_request())
        deployment.workers.report(old, report(1, 10))
        hello = Hello("g2", "w", 2, 1, (0, 1), BEFORE)
        deployment, new = await deployments.join(JoinRequest("d", SPEC, hello, 6, 0))
        deployment.workers.report(new, report(1, 3))
        with pytest.raises(SessionClosedError, match="newer incarnation"):
            deployment.workers.report(old, report(2, 20))
        assert counted(deployment) == [[3] * 4] * 2


async def test_the_timer_of_an_offer_does_not_expire_the_next_offer(tmp_path):
    async with server(tmp_path, offer_seconds="3600") as deployments:
        deployment, worker = await deployments.join(join_request())
        timers = []
        for _ in range(3):
            await deployment.operators.move_to(AFTER)
            timers.append(deployment._expiry)
            version = deployment.rollout.record.switch.version
            await deployment.workers.answer(worker, Refused(version, AFTER.digest, "no room"))
        assert [timer.cancelled() for timer in timers] == [True, True, False]
    assert timers[-1].cancelled()
