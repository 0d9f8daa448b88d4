"""Real ranks, and a real server with its real store that is killed by SIGKILL."""

from __future__ import annotations

import random
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.bench.light import LightGroup, small
from tests.servers import ServerProcess, server_process
from tests.tools.simulate.small import PATIENCE, one_swap, small_fleet, small_options
from trimtab_client import Client, FailedPreconditionError, Placement
from trimtab_protocol.version import Version
from trimtab_server.store.sqlite import SqliteStore
from trimtab_tools.simulate.fleet import Fleet
from trimtab_tools.simulate.targets import RandomTargets

WAIT = PATIENCE
NO_FAILPOINT = ("--failpoints", "")
DEPLOYMENTS = ("model/decode", "model/prefill")

pytestmark = [pytest.mark.process, pytest.mark.slow]


def fleet_of(folder: Path, *flags: str) -> Fleet:
    """A fleet with its history and its server's store in a folder."""
    history, store = folder / "history.jsonl", folder / "db"
    return small_fleet(history=history, server_flags=("--store", str(store), *flags))


def next_target(fleet: Fleet) -> Placement:
    return RandomTargets(fleet.options).after(fleet.target)


def wait_until_the_server_dies(fleet: Fleet) -> None:
    server = fleet.own_server()
    assert fleet.wait("the server to die", lambda: server.exit_code) == 137


async def test_sessions_of_one_process_do_not_affect_each_other(server: ServerProcess):
    """For instance a prefill and a decode deployment, with a session of each on every rank."""
    async with (
        LightGroup(server.address, small(3), "one process/decode") as decode,
        LightGroup(server.address, small(3), "one process/prefill") as prefill,
    ):
        targets = decode.swapped(1), prefill.swapped(2)
        for group, target in zip((decode, prefill), targets, strict=True):
            await group.until_all("in_force", group.placement.digest)
            with Client(server.address) as client:
                client.trigger(group.deployment, placement=target)
            await group.until_all("flipped", target.digest)
        for group, target in zip((decode, prefill), targets, strict=True):
            assert [session.placement for session in group.sessions] == [target] * 3


@pytest.mark.concurrent
def test_deployments_of_one_server_do_not_affect_each_other(tmp_path: Path) -> None:
    history = tmp_path / "history.jsonl"
    with ExitStack() as running:
        store = ("--store", str(tmp_path / "db"), "--history", str(history))
        address = running.enter_context(server_process(*store)).address
        options = [small_options(ranks=2, deployment=name) for name in DEPLOYMENTS]
        decode, prefill = [
            running.enter_context(small_fleet(each, server=address, history=history))
            for each in options
        ]
        client = running.enter_context(Client(address))
        prefill.wait_in_force()
        client.pause(DEPLOYMENTS[1], "only the other one")
        target = next_target(decode)
        decode.switch_to(target)
        with pytest.raises(FailedPreconditionError, match="only the other one"):
            client.trigger(DEPLOYMENTS[1], placement=target)
        client.resume(DEPLOYMENTS[1])
        pinned = one_swap(prefill.target)
        client.pin(DEPLOYMENTS[1], pinned)
        prefill.wait_flipped(pinned.digest)
        assert decode.target == target
        assert decode.wait_flipped(target.digest).generation == 1
        for name, served in zip(DEPLOYMENTS, (target, pinned), strict=True):
            # The server may not know of the last flip yet.
            watch = client.watch_placement(name, timeout=WAIT)
            assert any(each.placement.digest == served.digest for each in watch)
        assert [each.spec.name for each in client.deployments()] == list(DEPLOYMENTS)
        client.unpin(DEPLOYMENTS[1])
        prefill.switch_to(pinned)
        reports = [decode.finish(), prefill.finish()]
    assert all(report.ok for report in reports), reports


# That what was not written and what was only written are alike lost, tests/store shows.
TRANSITIONS = [
    (transition, stage)
    for transition in ("offered", "committed", "applied")
    for stage in ("written", "durable")
]


@pytest.mark.parametrize(("transition", "stage"), TRANSITIONS)
@pytest.mark.concurrent
def test_a_server_that_dies_at_a_durable_transition_goes_on_from_it(
    tmp_path: Path, transition: str, stage: str
) -> None:
    # The first save opens the epoch.
    save = 2 + ["offered", "committed", "applied"].index(transition)
    with fleet_of(tmp_path, "--failpoints", f"save:{stage}=exit@{save}") as fleet:
        fleet.wait_in_force()
        target = one_swap(fleet.target)
        fleet.trigger_once(target, WAIT)  # The server may die before it answers.
        wait_until_the_server_dies(fleet)
        fleet.start_server(*NO_FAILPOINT)
        fleet.switch_to(next_target(fleet))
        report = fleet.finish()
        flips = fleet.history.lines("flipped", digest=target.digest.hex())
    assert report.ok, report
    durably_committed = (transition, stage) in {
        ("committed", "durable"),
        ("applied", "written"),
        ("applied", "durable"),
    }
    assert len(flips) == (fleet.options.ranks if durably_committed else 0), (
        "a switch is carried out if its commit is durable, and else aborted"
    )


@pytest.mark.parametrize("operation", ["open", "outrank", "save_counters", "save_spec"])
@pytest.mark.concurrent
def test_a_server_that_dies_after_any_other_durable_write_goes_on_as_well(
    tmp_path: Path, operation: str
) -> None:
    store, failpoint = tmp_path / "db", ("--failpoints", f"{operation}:durable=exit")
    # With the others the server dies before it is ready, or at its first Hello, so another
    # server has to run before.
    dies_first = operation.startswith("save_")
    for _ in range(3):
        # Raises the term of this store above that of a new one.
        SqliteStore(store).close()
    with fleet_of(tmp_path, "--save-seconds", "0.2", *(failpoint if dies_first else ())) as fleet:
        if not dies_first:
            fleet.wait_in_force()
            fleet.faults.kill_server()
            store = tmp_path / "new" if operation == "outrank" else store
            fleet.start_server("--store", str(store), *failpoint, wait=False)
        wait_until_the_server_dies(fleet)
        fleet.start_server("--store", str(store), *NO_FAILPOINT)
        fleet.switch_to(next_target(fleet))
        report = fleet.finish()
    assert (report.wrong, report.trouble) == (0, "")
    broken = {each.invariant for each in report.verdict.violations}
    # The history of a lost store breaks these rules.
    assert broken <= ({"P1", "P2"} if operation == "outrank" else set())


@pytest.mark.parametrize("transition", ["idle", "offered", "committed"])
@pytest.mark.concurrent
def test_a_fleet_goes_on_with_a_server_that_has_lost_its_store(
    tmp_path: Path, transition: str
) -> None:
    failpoints = {"offered": "save:durable=exit@2", "committed": "save:durable=exit@3"}
    with fleet_of(tmp_path, "--failpoints", failpoints.get(transition, "")) as fleet:
        before = fleet.wait_in_force()
        if transition in failpoints:
            fleet.trigger_once(one_swap(fleet.target), WAIT)
            wait_until_the_server_dies(fleet)
        else:
            fleet.faults.kill_server()
        fleet.start_server("--store", str(tmp_path / "new"), *NO_FAILPOINT)
        assert fleet.wait_in_force(after=before) == Version(2, 0)
        target = fleet.switch_to(next_target(fleet))
        assert fleet.wait_flipped(target.digest).epoch == 2
        report = fleet.finish()
    assert (report.wrong, report.trouble) == (0, "")
    # A lost store shows in the history by these violations, and by no others.
    shown = [
        ("P1", "the server starts in term 1 after term 1"),
        ("P2", f"group '{fleet.state.group}' opens"),
    ]
    violations = report.verdict.violations
    assert len(violations) == len(shown)
    for violation, (rule, message) in zip(violations, shown, strict=True):
        assert (violation.invariant, violation.message.startswith(message)) == (rule, True)


@pytest.mark.concurrent
def test_kill_9_of_the_server_loses_nothing(tmp_path: Path):
    rng = random.Random(1)
    with fleet_of(tmp_path) as fleet:
        targets = RandomTargets(fleet.options)
        fleet.wait_in_force()
        for _ in range(3):
            fleet.trigger(targets.after(fleet.target))
            # At any point of the switch, which takes about as long.
            time.sleep(rng.random() * 0.05)
            fleet.faults.kill_server()
            fleet.start_server()
        # A switch is durably applied once the next one can be offered.
        for _ in range(3):
            fleet.switch_to(targets.after(fleet.target))
        report = fleet.finish()
    assert report.ok, report
