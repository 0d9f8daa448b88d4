"""Fleets of real processes: switches, deaths at each point, a dead or a hung server."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.servers import server_process
from trimtab_client import DeadlineExceededError, InvalidArgumentError, Placement
from trimtab_client.version import Version
from trimtab_tools.history import check_history, read_history
from trimtab_tools.simulate.errors import FleetError
from trimtab_tools.simulate.fleet import Fleet
from trimtab_tools.simulate.messages import SwitchPoint
from trimtab_tools.simulate.options import FleetOptions
from trimtab_tools.simulate.report import Report
from trimtab_tools.simulate.targets import RandomTargets

SMALL = {"ranks": 4, "layers": 2, "experts": 8, "hidden": 16, "tokens": 8}


def options(**values: object) -> FleetOptions:
    return FleetOptions(**{**SMALL, **values})


def one_swap(placement: Placement) -> Placement:
    """The same but for two slots of different GPUs: one switch, and not several."""
    rows = placement.phy2log.copy()
    rows[0, [0, -1]] = rows[0, [-1, 0]]
    return Placement.of(rows, placement.num_experts, placement.num_gpus)


def assert_clean(report: Report) -> None:
    assert report.ok, report
    assert report.verdict is not None
    assert report.verdict.violations == ()
    assert report.tokens > 0
    assert report.complaints == ()
    # A target is given up where a rank dies between two of its switches.
    assert report.alarms == ()


@pytest.fixture(scope="module", params=["pull", "collective"])
def fleet(request) -> Iterator[Fleet]:
    """One that lives through all that a test does to it, and is judged at the end."""
    with Fleet(options(transfer=request.param)) as running:
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
        steps = set(fleet.ledger.switches[version].flipped.values())
        assert len(steps) == 1, "all at the same step"
    assert fleet.ledger.total().moved > 0
    assert fleet.ledger.groups == 1


def told_prepared(fleet: Fleet, target: Placement) -> Version:
    """An offer that rank 1 has prepared, and the server has heard so; rank 2 takes its time."""
    fleet.slow(2, 1.0)
    before = len(fleet.history.lines("prepared", worker="rank 1"))
    version = fleet.trigger(target).in_force
    fleet.wait_noted("prepared", worker="rank 1", count=before + 1)
    return version


def offered_until(point: SwitchPoint) -> Callable[[Fleet, Placement], Version]:
    """An offer during which rank 1 dies by itself, when it gets there."""

    def trigger(fleet: Fleet, target: Placement) -> Version:
        fleet.kill_rank(1, point)
        return fleet.trigger(target).in_force

    return trigger


@pytest.mark.parametrize(
    ("begin", "dies", "committed", "taken"),
    [
        (lambda fleet, _: fleet.wait_in_force(), True, False, False),
        (offered_until(SwitchPoint.ACCEPTED), False, False, False),
        (offered_until(SwitchPoint.PREPARED), False, False, False),
        (told_prepared, True, False, False),
        (offered_until(SwitchPoint.ARMED), False, True, False),
        (offered_until(SwitchPoint.FLIPPING), False, True, True),
    ],
    ids=["idle", "offered", "prepared", "told prepared", "armed", "flipping"],
)
def test_a_rank_killed_at_any_time_leaves_the_others_right(
    fleet: Fleet,
    targets: RandomTargets,
    begin: Callable[[Fleet, Placement], Version],
    dies: bool,
    committed: bool,
    taken: bool,
):
    base = fleet.switch_to(targets.after(fleet.target))
    target = one_swap(base)
    groups, wrong = fleet.ledger.groups, fleet.ledger.total().wrong
    before = begin(fleet, target)
    if dies:
        fleet.kill_rank(1)
    began = fleet.wait_in_force(after=before)

    assert fleet.ledger.groups == groups + 1
    served = fleet.history.lines("epoch", epoch=began.epoch)[0]["digest"]
    assert served == (target if taken else base).digest.hex(), "what the survivors serve by"
    was_committed = fleet.history.lines("committed", digest=target.digest.hex())
    assert bool(was_committed) == committed
    steps = fleet.ledger.total().step
    fleet.switch_to(targets.after(fleet.target))
    fleet.wait("steps after those before", lambda: fleet.ledger.total().step > steps or None)
    assert fleet.ledger.total().wrong == wrong == 0


def test_two_ranks_that_die_at_once_are_both_replaced(fleet: Fleet, targets: RandomTargets):
    before = fleet.wait_in_force()
    fleet.kill_rank(0)
    fleet.kill_rank(3)
    fleet.wait_in_force(after=before)
    fleet.switch_to(targets.after(fleet.target))


def test_a_refusal_is_an_abort_and_the_next_offer_is_taken(fleet: Fleet):
    aborts = len(fleet.history.lines("aborting"))
    fleet.refuse(2)
    fleet.switch_to(one_swap(fleet.target))
    (refused,) = fleet.history.lines("aborting")[aborts:]

    assert "refused by 'rank 2'" in refused["reason"]


def test_all_ranks_die_and_begin_anew(fleet: Fleet, targets: RandomTargets):
    before = fleet.wait_in_force()
    for rank in range(fleet.options.ranks):
        fleet.kill_rank(rank)
    fleet.wait_in_force(after=before)
    fleet.switch_to(targets.after(fleet.target))


def test_a_killed_server_comes_back_and_a_stopped_rank_is_waited_for(tmp_path: Path):
    history = tmp_path / "history.jsonl"
    flags = ("--offer-seconds", "1")
    with Fleet(options(barrier_every=3), history=history, server_flags=flags) as fleet:
        targets = RandomTargets(fleet.options)
        fleet.switch_to(targets.after(fleet.target))
        epoch = fleet.wait_in_force().epoch
        fleet.trigger(targets.after(fleet.target))
        fleet.kill_server()
        fleet.start_server()
        fleet.switch_to(targets.after(fleet.target))

        # LeftGroup before it has said so, it would keep the server waiting.
        fleet.wait_noted("applied", digest=fleet.target.digest.hex())
        before = len(fleet.history.lines("aborting"))
        fleet.stop_rank(1)
        target = one_swap(fleet.target)
        fleet.trigger(target)
        late = fleet.wait_noted("aborting", count=before + 1)[before]
        fleet.go_on_rank(1)
        fleet.switch_to(target)
        assert fleet.wait_in_force().epoch == epoch, "nobody died"
        report = fleet.finish()

    assert "not prepared in time by" in late["reason"]
    assert_clean(report)
    assert [fault.fault for fault in report.faults] == ["kill-server", "stop-rank:1"]
    assert all(fault.flipped_after is not None for fault in report.faults)
    with history.open("rb") as lines:
        assert check_history(read_history(lines), complete=True) == report.verdict


def test_a_flip_that_copies_wrong_weights_is_seen_by_its_numbers_only():
    """All labels are right: no other check could find it."""
    command = (sys.executable, "-m", "tests.tools.simulate.wrong_rank")
    with Fleet(options(), rank_command=command) as fleet:
        fleet.wait_in_force()
        fleet.wait("a step", lambda: fleet.ledger.total().tokens or None)
        assert fleet.ledger.total().wrong == 0
        fleet.switch_to(RandomTargets(fleet.options).after(fleet.target))
        fleet.wait("a wrong token", lambda: fleet.ledger.total().wrong or None)
        report = fleet.finish()

    assert not report.ok
    assert report.wrong > 0
    assert "expert" in report.examples[0]
    assert report.verdict is not None
    assert report.verdict.violations == ()
    assert report.trouble == ""


def test_a_server_that_runs_already_is_used_and_left_alone(tmp_path: Path):
    history = tmp_path / "history.jsonl"
    with server_process("--store", str(tmp_path / "db"), "--history", str(history)) as server:
        with Fleet(options(ranks=2), server=server.address, history=history) as fleet:
            fleet.switch_to(one_swap(fleet.target))
            with pytest.raises(InvalidArgumentError, match="server: it is not the fleet's own"):
                fleet.kill_server()
            report = fleet.finish()
        assert server.process.poll() is None

    assert_clean(report)


def test_a_rank_that_cannot_run_ends_the_fleet_with_what_it_said():
    command = (sys.executable, "-c", "import sys; sys.exit('no GPU here')")
    with (
        pytest.raises(FleetError, match=r"rank \d ended with code 1: no GPU here"),
        Fleet(options(ranks=2), rank_command=command) as fleet,
    ):
        fleet.wait_in_force()


def test_what_does_not_come_in_time_is_named_and_so_is_what_is(fleet: Fleet):
    fleet.wait_in_force()
    with pytest.raises(DeadlineExceededError) as late:
        fleet.wait_flipped(b"\1" * 32, timeout=0.05)

    version = fleet.wait_in_force()
    assert "waited 0.05 s for all ranks to serve by 01010101" in str(late.value)
    assert f"rank 3 serving by {version}" in str(late.value)


def test_a_fleet_without_a_server_says_what_to_install(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "trimtab_server", None)

    with pytest.raises(FleetError, match=r"pip install 'trimtab\[server\]'"), Fleet(options()):
        pass


def test_a_history_with_something_in_it_is_not_written_to(tmp_path: Path):
    path = tmp_path / "history.jsonl"
    path.write_text("{}\n")

    with pytest.raises(InvalidArgumentError, match="is not empty"):
        Fleet(options(), history=path)
