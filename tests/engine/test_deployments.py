"""Deployments over a store that outlives them: what a restarted server goes on with."""

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
from trimtab_server.domain.placement import Placement
from trimtab_server.domain.topology import Topology
from trimtab_server.domain.version import Version
from trimtab_server.engine.arrival import Arrival, Facts
from trimtab_server.engine.deployments import Deployments
from trimtab_server.engine.store_thread import StoreThread
from trimtab_server.history import History
from trimtab_server.loads.counters import Report
from trimtab_server.rollout.messages import (
    Applied,
    Commit,
    Held,
    HeldState,
    Hello,
    Prepared,
    Refused,
    Welcome,
)
from trimtab_server.rollout.rollout import Phase
from trimtab_server.store.errors import StoreCorruptError, StoreError
from trimtab_server.store.failpoints import configure
from trimtab_server.store.sqlite import SqliteStore
from trimtab_tools.history import check_history, read_history

FACTS = Facts(Topology(6, 2), 2, 4, "local", "pull", 100)


def arrival(
    name: str = "d", facts: Facts = FACTS, stream: int = 1, max_layers: int = 0, **said: Any
) -> Arrival:
    """One worker that owns both GPUs."""
    hello = Hello("g", "w", 1, stream, (0, 1), said.pop("serves", BEFORE), **said)
    return Arrival(name, facts, hello, 6, max_layers)


@asynccontextmanager
async def server(folder, **settings) -> AsyncIterator[Deployments]:
    """A start of the server, with a store and a history in the folder."""
    config = make_config(**settings).sessions
    history = History(str(folder / "history.jsonl"))
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
        deployment, worker = await deployments.join(arrival())
        await deployment.move_to(AFTER)
        version = deployment.rollout.record.switch.version
        await deployment.answer(worker, Prepared(version, AFTER.digest))
        assert deployment.rollout.phase is Phase.COMMITTED
        term = deployments.term
    async with server(tmp_path) as deployments:
        assert deployments.term == term + 1
        held = Held(version, HeldState.PREPARED)
        deployment, worker = await deployments.join(arrival(in_force=Version(1, 0), held=held))
        orders = [(await worker.mailbox.take())[1] for _ in ("welcome", "switch")]
        assert orders == [Welcome(Version(1, 0), BEFORE.digest), Commit(version, AFTER.digest)]
        await deployment.answer(worker, Applied(version, AFTER.digest, 7))
        assert deployment.rollout.record.in_force == version
    assert verdict(tmp_path) == []


async def test_a_server_that_has_lost_its_store_outranks_the_one_before(tmp_path, capsys):
    async with server(tmp_path) as deployments:
        await deployments.join(arrival(term=6, epoch=3))
        assert deployments.term == 7
        await deployments.join(arrival("other", term=7))
        assert deployments.term == 7, "that is its own"
    alarm = "'w' has heard a server of term 6, and this one's is 1: its store was lost"
    assert alarm in capsys.readouterr().out
    async with server(tmp_path) as deployments:
        assert deployments.term == 8
        assert [each.name for each in deployments.all()] == ["d", "other"]
    assert verdict(tmp_path) == []


async def test_a_worker_that_cannot_be_outranked_is_told_to_come_again(tmp_path):
    async with server(tmp_path) as deployments:
        configure("outrank:before=error")
        try:
            with pytest.raises(UnavailableError, match="store failed"):
                await deployments.join(arrival(term=6))
        finally:
            configure("")
        assert deployments.term == 1
        await deployments.join(arrival(term=6))
        assert deployments.term == 7


async def test_workers_that_come_at_once_outrank_once(tmp_path, capsys):
    async with server(tmp_path) as deployments:
        hellos = [Hello("g", f"w{gpu}", 1, 1, (gpu,), BEFORE, term=6 + gpu) for gpu in range(2)]
        await asyncio.gather(*(deployments.join(Arrival("d", FACTS, h, 6, 0)) for h in hellos))
        assert deployments.term in (7, 8)
    assert verdict(tmp_path) == []
    assert capsys.readouterr().out.count("its store was lost") == deployments.term - 6


async def test_a_term_that_cannot_be_is_refused(tmp_path):
    async with server(tmp_path) as deployments:
        with pytest.raises(InvalidArgumentError, match=r"hello\.term"):
            await deployments.join(arrival(term=2 + (1 << 32)))
        assert deployments.term == 1


class SavesFail(SqliteStore):
    """One save, when it is let, fails."""

    release: threading.Event | None = None

    def save(self, deployment, record):
        release, SavesFail.release = SavesFail.release, None
        if release is not None:
            release.wait()
            raise StoreError("the disk is gone")
        super().save(deployment, record)


async def test_a_session_that_begins_while_the_store_fails_leaves_nothing_behind(tmp_path):
    """Else a group would wait for ever for the session of a worker that never had one."""
    history, store = History("none"), StoreThread(lambda: SavesFail(tmp_path / "db"))
    deployments = Deployments(make_config().sessions, store, history)
    await deployments.open()
    deployment, _ = await deployments.join(arrival())
    release = SavesFail.release = threading.Event()
    pausing = asyncio.ensure_future(deployment.pause("by hand"))
    hello = Hello("g2", "pod-7", 1, 1, (0,), BEFORE)
    joining = asyncio.ensure_future(deployments.join(Arrival("d", FACTS, hello, 6, 0)))
    await until(lambda: len(deployment.connections) == 2)
    release.set()
    for each in (pausing, joining):
        with pytest.raises(UnavailableError):
            await each
    for session in deployment.connections:
        deployments.leave(deployment, session)
    await deployment.settle()
    assert list(deployment.rollout._sessions) == []
    await deployments.close()
    history.close()


async def test_counts_are_saved_every_few_seconds(tmp_path):
    async with server(tmp_path, save_seconds="0.1") as deployments:
        deployment, worker = await deployments.join(arrival())
        deployment.report(worker, report(1, 10))
        await until(lambda: deployments._store.store.load_counters("d"))
        [saved] = deployments._store.store.load_counters("d").values()
        assert saved.counts_LE.tolist() == [[10] * 4] * 2


async def test_an_offer_fits_the_worker_that_has_the_least_room(tmp_path):
    async with server(tmp_path) as deployments:
        for gpu, room in enumerate((1, 6)):
            hello = Hello("g", f"w{gpu}", 1, 1, (gpu,), BEFORE)
            deployment, _ = await deployments.join(Arrival("d", FACTS, hello, room, 0))
        await deployment.move_to(AFTER)
        offered = deployment.rollout.record.switch.placement
        moves = moves_between(BEFORE.tensor(), offered.tensor(), 4, 2)
        received = np.bincount(moves.layer_slot_expert[:, 1] // 3, minlength=2)
        assert received.max() == 1


async def test_a_pause_can_be_ended_before_any_worker_is_back(tmp_path):
    async with server(tmp_path) as deployments:
        deployment, _ = await deployments.join(arrival())
        assert await deployment.pause("maintenance") is None
        assert await deployment.pause("more of it") == "maintenance"
    async with server(tmp_path) as deployments:
        assert await deployments.find("d").resume() == "more of it"
        assert await deployments.find("d").resume() is None
        with pytest.raises(NotFoundError, match="there is no deployment 'e'"):
            deployments.find("e")
        deployment, _ = await deployments.join(arrival(stream=2, in_force=Version(1, 0)))
        assert deployment.rollout.why_not() is None
    assert verdict(tmp_path) == []


async def test_who_refuses_is_not_asked_again(tmp_path):
    async with server(tmp_path) as deployments:
        deployment, worker = await deployments.join(arrival())
        await deployment.move_to(AFTER)
        version = deployment.rollout.record.switch.version
        # The only one: with the refusal the switch is aborted, and over.
        await deployment.answer(worker, Refused(version, AFTER.digest, "no room"))
        assert deployment.rollout.phase is Phase.IDLE
        assert deployment.rollout.record.last_generation == 1
        assert deployment.target is None
        await deployment.move_to(AFTER)
        assert deployment.rollout.phase is Phase.OFFERED
    assert verdict(tmp_path) == []


async def test_a_way_that_cannot_go_on_is_given_up_and_wakes_nobody(tmp_path, capsys):
    """Its next piece is wanted no more: whoever paused knows that, or the next plan will."""
    async with server(tmp_path) as deployments:
        deployment, worker = await deployments.join(arrival(max_layers=1))
        await deployment.move_to(AFTER)
        switch = deployment.rollout.record.switch
        digest = switch.placement.digest
        assert digest != AFTER.digest, "it takes two"
        await deployment.answer(worker, Prepared(switch.version, digest))
        await deployment.pause("by hand")
        await deployment.answer(worker, Applied(switch.version, digest, 7))
        assert deployment.rollout.record.in_force == switch.version
        assert deployment.target is None
    assert "the deployment is paused: by hand" in (tmp_path / "history.jsonl").read_text()
    assert "alarm" not in capsys.readouterr().out
    assert verdict(tmp_path) == []


async def test_counts_go_on_from_what_was_saved(tmp_path):
    async with server(tmp_path) as deployments:
        deployment, worker = await deployments.join(arrival())
        deployment.report(worker, report(1, 10))
        await deployment.save_counters()
        # Not saved when the server dies; the next difference covers it.
        configure("save_counters:before=error")
        deployment.report(worker, report(2, 15))
        try:
            await deployments.close()
        finally:
            configure("")
    async with server(tmp_path) as deployments:
        deployment, worker = await deployments.join(arrival(stream=2))
        assert deployment.report(worker, report(3, 30)) == 3
        assert counted(deployment) == [[30] * 4] * 2
        assert np.allclose(deployment.load(), 10.0), "tokens a step, in each of three"
    assert verdict(tmp_path) == []


async def test_a_stored_deployment_keeps_its_sizes(tmp_path):
    async with server(tmp_path) as deployments:
        await deployments.join(arrival())
    wider = Placement.of(np.array([[0, 1, 2, 3] * 2]), 4, 2)
    facts = Facts(Topology(8, 2), 1, 4, "local", "pull", 100)
    async with server(tmp_path) as deployments:
        with pytest.raises(
            FailedPreconditionError,
            match="differs in num_replicas: 8 is not 6; num_layers: 1 is not 2",
        ):
            await deployments.join(arrival(facts=facts, serves=wider))


async def test_more_deployments_than_there_may_be_are_refused(tmp_path):
    async with server(tmp_path, max_deployments=1) as deployments:
        await deployments.join(arrival("one"))
        with pytest.raises(ResourceExhaustedError, match="1 deployments are"):
            await deployments.join(arrival("two"))


DAMAGES = {
    "record": ("UPDATE records SET body = 'nonsense' WHERE deployment = ?", "unsound"),
    "placement": ("UPDATE placements SET body = 'nonsense' WHERE digest = ?", AFTER.digest),
    "counters": ("UPDATE counters SET body = 'nonsense' WHERE deployment = ?", "unsound"),
}


@pytest.mark.parametrize("damage", DAMAGES)
async def test_a_deployment_that_cannot_be_read_is_named_at_the_start(tmp_path, damage):
    async with server(tmp_path) as deployments:
        await deployments.join(arrival("sound"))
        deployment, worker = await deployments.join(arrival("unsound", serves=AFTER))
        deployment.report(worker, report(1, 10))
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


async def test_a_deployment_that_can_be_read_no_more_is_an_alarm_and_its_workers_come_again(
    tmp_path,
):
    alarms = []
    async with server(tmp_path) as deployments:
        await deployments.join(arrival())
    # As a server leaves it that stored no specs: what it is, its workers say.
    with closing(sqlite3.connect(tmp_path / "trimtab.db")) as db, db:
        db.execute("DELETE FROM specs")
    async with server(tmp_path) as deployments:
        deployments._history.alarm = lambda *said: alarms.append(said)
        with closing(sqlite3.connect(tmp_path / "trimtab.db")) as db, db:
            db.execute("UPDATE records SET body = 'nonsense'")
        with pytest.raises(UnavailableError, match="the server's store failed"):
            await deployments.join(arrival(stream=2))
    ((name, said),) = alarms
    assert name == "d"
    assert said.startswith("the store failed: store ")


async def test_what_a_server_left_that_stored_no_specs_can_be_deleted_too(tmp_path):
    async with server(tmp_path) as deployments:
        await deployments.join(arrival())
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


async def test_what_never_had_a_complete_group_is_forgotten_and_leaves_nothing(tmp_path):
    half = Hello("g", "w", 1, 1, (0,), BEFORE)
    async with server(tmp_path) as deployments:
        deployment, worker = await deployments.join(Arrival("half", FACTS, half, 6, 0))
        deployment.report(worker, report(1, 10))
        await deployment.save_counters()
        assert not deployments._store.store.load_counters("half")
        deployments.leave(deployment, worker)
        await until(lambda: len(deployments) == 0)
        with pytest.raises(NotFoundError, match="there is no deployment 'half'"):
            deployments.find("half")
        await deployments.join(Arrival("half", FACTS, half, 6, 0))


async def test_counts_are_kept_of_those_who_are_in_the_epoch_or_here(tmp_path):
    async with server(tmp_path) as deployments:
        for group in range(3):
            hello = Hello(f"g{group}", f"w{group}", 1, 1, (0, 1), BEFORE)
            deployment, worker = await deployments.join(Arrival("d", FACTS, hello, 6, 0))
            deployment.report(worker, report(1, 10 + group))
            deployments.leave(deployment, worker)
            await deployment.settle()
        # Of the last group, though it is not here.
        assert counted(deployment) == [[12] * 4] * 2
    async with server(tmp_path) as deployments:
        assert list(deployments._store.store.load_counters("d")) == ["w2"]
    assert verdict(tmp_path) == []


async def test_a_new_incarnation_is_saved_also_where_it_has_reported_as_often(tmp_path):
    async with server(tmp_path) as deployments:
        for incarnation, tokens in ((1, 10), (2, 3)):
            hello = Hello(f"g{incarnation}", "w", incarnation, 1, (0, 1), BEFORE)
            deployment, worker = await deployments.join(Arrival("d", FACTS, hello, 6, 0))
            deployment.report(worker, report(1, tokens))
            await deployment.save_counters()
        saved = deployments._store.store.load_counters("d")["w"]
        assert (saved.incarnation, saved.counts_LE.max()) == (2, 3)


async def test_an_incarnation_that_has_been_followed_reports_no_more(tmp_path):
    async with server(tmp_path) as deployments:
        deployment, old = await deployments.join(arrival())
        deployment.report(old, report(1, 10))
        hello = Hello("g2", "w", 2, 1, (0, 1), BEFORE)
        deployment, new = await deployments.join(Arrival("d", FACTS, hello, 6, 0))
        deployment.report(new, report(1, 3))
        with pytest.raises(SessionClosedError, match="newer incarnation"):
            deployment.report(old, report(2, 20))
        assert counted(deployment) == [[3] * 4] * 2


async def test_an_offer_that_was_followed_does_not_expire_the_next_one(tmp_path):
    async with server(tmp_path, offer_seconds="3600") as deployments:
        deployment, worker = await deployments.join(arrival())
        timers = []
        for _ in range(3):
            await deployment.move_to(AFTER)
            timers.append(deployment._switching._expiry)
            version = deployment.rollout.record.switch.version
            await deployment.answer(worker, Refused(version, AFTER.digest, "no room"))
        assert [timer.cancelled() for timer in timers] == [True, True, False]
    assert timers[-1].cancelled()
