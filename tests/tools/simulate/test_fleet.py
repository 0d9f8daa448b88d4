"""Fleets of real processes: switches, deaths at each point, and servers that die or hang."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.servers import server_process
from tests.tools.simulate.small import one_swap, small_fleet, small_options
from trimtab_client import Client, DeadlineExceededError, InvalidArgumentError, Placement
from trimtab_protocol.version import Version
from trimtab_tools.history import check_history, read_history
from trimtab_tools.simulate.errors import FleetError
from trimtab_tools.simulate.fleet import Fleet
from trimtab_tools.simulate.messages import SwitchPoint
from trimtab_tools.simulate.report import Report
from trimtab_tools.simulate.targets import RandomTargets


def assert_clean(report: Report) -> None:
    assert report.ok, report
    assert report.verdict is not None
    assert report.verdict.violations == ()
    assert report.tokens > 0
    assert report.complaints == ()
    assert report.alarms == ()


def wait_until_all_have_sessions(fleet: Fleet) -> None:
    with Client(fleet.address) as client:

        def connected() -> bool | None:
            status = client.get_deployment(fleet.options.deployment).status
            return status.workers_connected == fleet.options.ranks or None

        fleet.wait("all ranks to have a session", connected)


@pytest.mark.concurrent
def test_a_server_may_be_killed_and_an_offer_to_a_stopped_rank_is_repeated(
    tmp_path: Path,
) -> None:
    history = tmp_path / "history.jsonl"
    flags = ("--offer-seconds", "1")
    with small_fleet(small_options(barrier_every=3), history=history, server_flags=flags) as fleet:
        targets = RandomTargets(fleet.options)
        fleet.switch_to(targets.after(fleet.target))
        epoch = fleet.wait_in_force().epoch
        fleet.trigger(targets.after(fleet.target))
        fleet.faults.kill_server()
        fleet.start_server()
        fleet.switch_to(targets.after(fleet.target))

        # If the rank were stopped before it has reported the flip, or while it has no session, the
        # server could not offer anything.
        fleet.wait_for_lines("applied", digest=fleet.target.digest.hex())
        wait_until_all_have_sessions(fleet)
        before = len(fleet.history.lines("aborting"))
        fleet.faults.stop_rank(1)
        target = one_swap(fleet.target)
        fleet.trigger(target)
        late = fleet.wait_for_lines("aborting", count=before + 1)[before]
        fleet.faults.resume_rank(1)
        fleet.switch_to(target)
        assert fleet.wait_in_force().epoch == epoch, "nobody died"
        report = fleet.finish()

    assert "not prepared in time by" in late["reason"]
    assert_clean(report)
    assert [fault.fault for fault in report.faults] == ["kill-server", "stop-rank:1"]
    assert all(fault.flipped_after is not None for fault in report.faults)
    with history.open("rb") as lines:
        assert check_history(read_history(lines), complete=True) == report.verdict


@pytest.mark.concurrent
def test_a_flip_that_copies_wrong_weights_shows_as_wrong_tokens() -> None:
    """Nothing else could show it: all labels are right."""
    command = (sys.executable, "-m", "tests.tools.simulate.wrong_rank")
    with small_fleet(rank_command=command) as fleet:
        fleet.wait_in_force()
        fleet.wait("a step", lambda: fleet.state.total().tokens or None)
        assert fleet.state.total().wrong == 0
        fleet.switch_to(RandomTargets(fleet.options).after(fleet.target))
        fleet.wait("a wrong token", lambda: fleet.state.total().wrong or None)
        report = fleet.finish()

    assert not report.ok
    assert report.wrong > 0
    assert "expert" in report.examples[0]
    assert report.verdict is not None
    assert report.verdict.violations == ()
    assert report.trouble == ""


@pytest.mark.concurrent
def test_a_fleet_uses_a_server_that_runs_already_and_does_not_touch_it(tmp_path: Path) -> None:
    history = tmp_path / "history.jsonl"
    with server_process("--store", str(tmp_path / "db"), "--history", str(history)) as server:
        with small_fleet(small_options(ranks=2), server=server.address, history=history) as fleet:
            fleet.switch_to(one_swap(fleet.target))
            with pytest.raises(InvalidArgumentError, match="server: the fleet has not started it"):
                fleet.faults.kill_server()
            report = fleet.finish()
        assert server.process.poll() is None

    assert_clean(report)


@pytest.fixture(scope="module", params=["pull", "collective"])
def fleet(request) -> Iterator[Fleet]:
    """A fleet that survives everything that tests do to it. Its report is checked at the end."""
    with small_fleet(small_options(transfer=request.param)) as running:
        yield running
        assert_clean(running.finish())


@pytest.fixture
def targets(fleet: Fleet) -> RandomTargets:
    return RandomTargets(fleet.options)


def test_all_ranks_switch_again_and_again(fleet: Fleet, targets: RandomTargets):
    began = fleet.wait_in_force()
    for _ in range(4):
        target = fleet.switch_to(targets.after(fleet.target))
        version = fleet.wait_flipped(target.digest)
        assert version.epoch == began.epoch
        steps = set(fleet.state.switches[version].flipped.values())
        assert len(steps) == 1, "all at the same step"
    assert fleet.state.total().moved > 0
    assert fleet.state.groups_formed == 1


def prepared_by_rank_1(fleet: Fleet, target: Placement) -> Version:
    """Trigger a switch that rank 1 has prepared, as the server knows; rank 2 is slow."""
    fleet.faults.slow(2, 1.0)
    fleet.faults.wait_pending(60)
    before = len(fleet.history.lines("prepared", worker="rank 1"))
    version = fleet.trigger(target).in_force
    fleet.wait_for_lines("prepared", worker="rank 1", count=before + 1)
    return version


def offered_until(point: SwitchPoint) -> Callable[[Fleet, Placement], Version]:
    """Trigger a switch in which rank 1 kills itself at this point."""

    def trigger(fleet: Fleet, target: Placement) -> Version:
        fleet.faults.kill_rank(1, point)
        fleet.faults.wait_pending(60)
        return fleet.trigger(target).in_force

    return trigger


@pytest.mark.parametrize(
    ("begin", "dies", "committed", "taken"),
    [
        (lambda fleet, _: fleet.wait_in_force(), True, False, False),
        (offered_until(SwitchPoint.ACCEPTED), False, False, False),
        (offered_until(SwitchPoint.PREPARED), False, False, False),
        (prepared_by_rank_1, True, False, False),
        (offered_until(SwitchPoint.ARMED), False, True, False),
        (offered_until(SwitchPoint.FLIPPING), False, True, True),
    ],
    ids=["idle", "offered", "prepared", "prepared, as the server knows", "armed", "flipping"],
)
def test_survivors_of_a_rank_killed_at_any_point_compute_right_results(
    fleet: Fleet,
    targets: RandomTargets,
    begin: Callable[[Fleet, Placement], Version],
    dies: bool,
    committed: bool,
    taken: bool,
):
    base = fleet.switch_to(targets.after(fleet.target))
    target = one_swap(base)
    groups, wrong = fleet.state.groups_formed, fleet.state.total().wrong
    before = begin(fleet, target)
    if dies:
        fleet.faults.kill_rank(1)
    began = fleet.wait_in_force(after=before)

    assert fleet.state.groups_formed == groups + 1
    served = fleet.history.lines("epoch", epoch=began.epoch)[0]["digest"]
    assert served == (target if taken else base).digest.hex(), "the placement of the survivors"
    was_committed = fleet.history.lines("committed", digest=target.digest.hex())
    assert bool(was_committed) == committed
    steps = fleet.state.total().step
    fleet.switch_to(targets.after(fleet.target))
    fleet.wait("further steps", lambda: fleet.state.total().step > steps or None)
    assert fleet.state.total().wrong == wrong == 0


def test_two_ranks_that_die_at_once_are_both_replaced(fleet: Fleet, targets: RandomTargets):
    before = fleet.wait_in_force()
    fleet.faults.kill_rank(0)
    fleet.faults.kill_rank(3)
    fleet.wait_in_force(after=before)
    fleet.switch_to(targets.after(fleet.target))


def test_a_refusal_aborts_a_switch_and_the_next_offer_is_accepted(fleet: Fleet):
    aborts = len(fleet.history.lines("aborting"))
    fleet.faults.refuse(2)
    fleet.faults.wait_pending(60)
    fleet.switch_to(one_swap(fleet.target))
    (refused,) = fleet.history.lines("aborting")[aborts:]

    assert "refused by 'rank 2'" in refused["reason"]


def test_all_ranks_may_die_and_begin_anew(fleet: Fleet, targets: RandomTargets):
    before = fleet.wait_in_force()
    for rank in range(fleet.options.ranks):
        fleet.faults.kill_rank(rank)
    fleet.wait_in_force(after=before)
    fleet.switch_to(targets.after(fleet.target))


def test_a_rank_that_cannot_run_ends_the_fleet_with_its_last_words():
    command = (sys.executable, "-c", "import sys; sys.exit('no GPU here')")
    with (
        pytest.raises(FleetError, match=r"rank \d ended with code 1: no GPU here"),
        small_fleet(small_options(ranks=2), rank_command=command) as fleet,
    ):
        fleet.wait_in_force()


def test_a_timeout_names_what_was_waited_for_and_the_state_of_the_ranks(fleet: Fleet):
    fleet.wait_in_force()
    with pytest.raises(DeadlineExceededError) as late:
        fleet.wait_flipped(b"\1" * 32, timeout=0.05)

    version = fleet.wait_in_force()
    assert "waited 0.05 s for all ranks to serve by 01010101" in str(late.value)
    assert f"rank 3 serving by {version}" in str(late.value)


def test_a_fleet_without_a_server_says_what_to_install(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "trimtab_server", None)

    with (
        pytest.raises(FleetError, match=r"pip install 'trimtab-tools\[server\]'"),
        small_fleet(small_options()),
    ):
        pass


def test_a_history_that_is_not_empty_is_refused(tmp_path: Path):
    path = tmp_path / "history.jsonl"
    path.write_text("{}\n")

    with pytest.raises(InvalidArgumentError, match="is not empty"):
        small_fleet(history=path)
