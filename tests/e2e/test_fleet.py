"""Real engines' loops, a real server with its real store, and kill -9."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from contextlib import ExitStack, suppress

import grpc
import pytest

from tests.e2e.fleet import WAIT, Fleet, some_placement
from tests.servers import server_process
from trimtab.v1 import placement_pb2
from trimtab.v1alpha1 import deployment_service_pb2 as pb
from trimtab.v1alpha1 import deployment_service_pb2_grpc
from trimtab_client import Client, FailedPreconditionError, Placement
from trimtab_client.version import Version
from trimtab_server.rpc.tensors import encode_tensor
from trimtab_server.store.sqlite import SqliteStore
from trimtab_tools.history import check_history, read_history
from trimtab_tools.history.events import Flipped

pytestmark = pytest.mark.process


def test_deployments_of_one_process_know_nothing_of_each_other(tmp_path):
    """A prefill and a decode group, say: a session each on every rank, and one server."""
    history = tmp_path / "history.jsonl"
    with ExitStack() as running:
        store = ("--store", str(tmp_path / "db"), "--history", str(history))
        server = running.enter_context(server_process(*store))
        names = ("model/decode", "model/prefill")
        fleets = [
            running.enter_context(Fleet(server.address, 3, history, deployment=name))
            for name in names
        ]
        for fleet in fleets:
            fleet.until_all("in_force")
        client = running.enter_context(Client(server.address))
        targets = [some_placement(fleet, seed) for seed, fleet in enumerate(fleets)]
        client.pause(names[1], "only the other one")
        client.trigger(names[0], placement=targets[0].phy2log)
        fleets[0].until_all("flipped", digest=targets[0].digest)
        with pytest.raises(FailedPreconditionError, match="only the other one"):
            client.trigger(names[1], placement=targets[1].phy2log)
        client.resume(names[1])
        client.pin(names[1], targets[1].phy2log)
        fleets[1].until_all("flipped", digest=targets[1].digest)
        for name, target in zip(names, targets, strict=True):
            # The server may have yet to hear of the last flip.
            watch = client.watch_placement(name, timeout=WAIT)
            assert any(served.placement.digest == target.digest for served in watch)
        assert [each.spec.name for each in client.deployments()] == list(names)
    assert [fleet.wrong for fleet in fleets] == [[], []]
    with history.open("rb") as lines:
        assert check_history(read_history(lines)).violations == ()


def trigger(address: str, placement: Placement) -> pb.TriggerResponse:
    """Ask for a placement; raises grpc.RpcError where that cannot be now."""
    with grpc.insecure_channel(address) as channel:
        stub = deployment_service_pb2_grpc.DeploymentServiceStub(channel)
        wire = placement_pb2.Placement(phy2log=encode_tensor(placement.phy2log, "i4"))
        return stub.Trigger(pb.TriggerRequest(deployment="fleet", placement=wire), timeout=WAIT)


def trigger_soon(address: str, placement: Placement) -> float:
    """The same, again and again until it can be; how many seconds that took."""
    start = time.monotonic()
    while True:
        try:
            trigger(address, placement)
        except grpc.RpcError as error:
            if time.monotonic() - start > WAIT:
                raise
            assert error.code() in (  # noqa: PT017
                grpc.StatusCode.NOT_FOUND,
                grpc.StatusCode.FAILED_PRECONDITION,
                grpc.StatusCode.UNAVAILABLE,
            )
        else:
            return time.monotonic() - start


def one_swap(placement: Placement) -> Placement:
    """The same but for two slots of different GPUs: one switch, and not several."""
    rows = placement.phy2log.copy()
    rows[0, [0, -1]] = rows[0, [-1, 0]]
    return Placement.of(rows, placement.num_experts, placement.num_gpus)


def test_all_ranks_switch_at_one_step_and_compute_right_all_the_time(tmp_path):
    history = tmp_path / "history.jsonl"
    with (
        server_process("--store", str(tmp_path / "db"), "--history", str(history)) as server,
        Fleet(server.address, history=history) as fleet,
    ):
        fleet.until_all("in_force")
        for seed in range(5):
            target = some_placement(fleet, seed)
            trigger_soon(server.address, target)
            flips = fleet.until_all("flipped", digest=target.digest)
            assert len({flip.values["step"] for flip in flips}) == 1
    assert fleet.wrong == []
    with history.open("rb") as lines:
        report = check_history(read_history(lines), complete=True)
    assert report.violations == ()
    assert report.flips >= 5 * fleet.ranks


@pytest.mark.parametrize("stage", ["before", "written", "durable"])
@pytest.mark.parametrize("transition", ["offered", "committed", "applied"])
def test_a_server_that_dies_at_a_durable_transition_goes_on_from_it(tmp_path, transition, stage):
    history, store = tmp_path / "history.jsonl", tmp_path / "db"
    # The first save opens the epoch.
    time_passed = 2 + ["offered", "committed", "applied"].index(transition)
    flags = ("--store", str(store), "--history", str(history))
    failpoint = ("--failpoints", f"save:{stage}=exit@{time_passed}")
    with ExitStack() as running:
        server = running.enter_context(server_process(*flags, *failpoint))
        flags += ("--listen", server.address)
        fleet = running.enter_context(Fleet(server.address, history=history))
        fleet.until_all("in_force")
        target = one_swap(fleet.placement)
        with suppress(grpc.RpcError):  # it may die before it answers
            trigger(server.address, target)
        assert server.process.wait(WAIT) == 137
        server = running.enter_context(server_process(*flags))
        last = some_placement(fleet, 2)
        trigger_soon(server.address, last)
        fleet.until_all("flipped", digest=last.digest)
    assert fleet.wrong == []
    with history.open("rb") as lines:
        events = list(read_history(lines))
    assert check_history(events).violations == ()
    taken = any(isinstance(e, Flipped) and e.digest == target.digest for e in events)
    durably_committed = (transition, stage) not in {
        *(("offered", each) for each in ("before", "written", "durable")),
        ("committed", "before"),
        ("committed", "written"),
    }
    assert taken == durably_committed, "presumed abort, or carried out"


@pytest.mark.slow
@pytest.mark.parametrize("operation", ["open", "outrank", "save_counters", "save_spec"])
def test_a_server_that_dies_as_soon_as_anything_else_is_durable_goes_on_as_well(
    tmp_path, operation
):
    history = tmp_path / "history.jsonl"
    flags = ("--history", str(history), "--save-seconds", "0.2")
    failpoint = ("--failpoints", f"{operation}:durable=exit")
    # Where it dies before it is ready, or at its first Hello, another one was there before.
    first = failpoint if operation.startswith("save_") else ()
    with ExitStack() as running:
        store = ("--store", str(tmp_path / "db"))
        for _ in range(3):
            # A term that the first start of another store does not have.
            SqliteStore(tmp_path / "db").close()
        server = running.enter_context(server_process(*store, *flags, *first))
        flags += ("--listen", server.address)
        fleet = running.enter_context(Fleet(server.address, history=history))
        if not first:
            fleet.until_all("in_force")
            server.process.kill()
            server.process.wait()
            store = ("--store", str(tmp_path / "new")) if operation == "outrank" else store
            # The same server as a process that may never be ready.
            command = [sys.executable, "-m", "trimtab_server", "serve", "--device", "cpu"]
            command += [*store, *flags]
            dying = subprocess.run([*command, *failpoint], check=False, timeout=WAIT)
            assert dying.returncode == 137
        else:
            assert server.process.wait(WAIT) == 137
        server = running.enter_context(server_process(*store, *flags))
        target = some_placement(fleet, 1)
        trigger_soon(server.address, target)
        fleet.until_all("flipped", digest=target.digest)
    assert fleet.wrong == []
    with history.open("rb") as lines:
        violations = check_history(read_history(lines)).violations
    assert {each.invariant for each in violations} <= (LOST if operation == "outrank" else set())


LOST = {"P1", "P2"}
"""What the history of a lost store breaks."""


@pytest.mark.parametrize("transition", ["idle", "offered", "committed"])
def test_a_fleet_goes_on_with_a_server_that_has_lost_its_store(tmp_path, transition):
    points = {"offered": "save:durable=exit@2", "committed": "save:durable=exit@3"}
    history = tmp_path / "history.jsonl"
    flags = ("--history", str(history), "--failpoints", points.get(transition, "none"))
    with ExitStack() as running:
        server = running.enter_context(server_process("--store", str(tmp_path / "lost"), *flags))
        fleet = running.enter_context(Fleet(server.address, history=history))
        fleet.until_all("in_force")
        if transition in points:
            with suppress(grpc.RpcError):
                trigger(server.address, one_swap(fleet.placement))
            assert server.process.wait(WAIT) == 137
        else:
            server.process.kill()
            server.process.wait()
        new = ("--store", str(tmp_path / "new"), "--listen", server.address)
        server = running.enter_context(server_process(*new, "--history", str(history)))
        fleet.until_all("in_force", version=Version(2, 0))
        target = some_placement(fleet, 1)
        trigger_soon(server.address, target)
        flips = fleet.until_all("flipped", digest=target.digest)
        assert {flip.values["version"].epoch for flip in flips} == {2}
    assert fleet.wrong == []
    with history.open("rb") as lines:
        violations = check_history(read_history(lines)).violations
    # That is what the history of a lost store shows, and all that it shows.
    shown = [("P1", "the server starts in term 1 after term 1"), ("P2", "group 'group' opens")]
    assert len(violations) == len(shown)
    for violation, (rule, message) in zip(violations, shown, strict=True):
        assert (violation.invariant, violation.message.startswith(message)) == (rule, True)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1])
def test_kill_9_of_the_server_loses_nothing(tmp_path, seed):
    rng = random.Random(seed)
    history, store = tmp_path / "history.jsonl", tmp_path / "db"
    with ExitStack() as running:
        server = running.enter_context(
            server_process("--store", str(store), "--history", str(history))
        )
        flags = ("--store", str(store), "--history", str(history), "--listen", server.address)
        fleet = running.enter_context(Fleet(server.address, history=history))
        fleet.until_all("in_force")
        for round_ in range(5):
            trigger_soon(server.address, some_placement(fleet, 100 * seed + round_))
            # Somewhere on the way: a switch takes about as long.
            time.sleep(rng.random() * 0.03)
            server.process.kill()
            server.process.wait()
            server = running.enter_context(server_process(*flags))
        target = some_placement(fleet, 100 * seed + 99)
        trigger_soon(server.address, target)
        fleet.until_all("flipped", digest=target.digest)
        # Applied by all is durable once the next one can be offered.
        last = some_placement(fleet, 100 * seed + 98)
        trigger_soon(server.address, last)
        fleet.until_all("flipped", digest=last.digest)
        trigger_soon(server.address, target)
        fleet.until_all("flipped", digest=target.digest)
    assert fleet.wrong == []
    with history.open("rb") as lines:
        report = check_history(read_history(lines))
    assert report.violations == ()
