"""Which placements an operator can go back to."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import pytest

from tests.rollout import scene
from tests.rollout.scene import BASE, FIRST, NEW, OLD, OTHER
from trimtab_protocol.messages import Applied, Prepared
from trimtab_protocol.placement import Placement
from trimtab_protocol.version import Version
from trimtab_server.rollout.points import Present, remembered
from trimtab_server.rollout.record import Origin, Record, Served

HOUR = 3600.0


def placement(number: int) -> Placement:
    """Another placement for each number: its bits say which expert has a second slot where."""
    return Placement.of([[0, 1, *(number >> bit & 1 for bit in range(12))]], 2, 1)


def after(lefts: Iterable[tuple[float | None, Placement]], max_points: int = 16) -> Record:
    """The record of a group that began with OLD and left its placement at these times."""
    record = Record(in_force=BASE, placement=OLD)
    for generation, (time, target) in enumerate(lefts, start=1):
        record = remembered(record, Present(time, 1.5, max_points))
        record = replace(record, in_force=Version(1, generation), placement=target)
    return record


def carry_out(
    rollout: scene.Example, target: Placement, origin: Origin, *, begins: bool = True
) -> None:
    """Offer a placement, and have both workers prepare and apply it."""
    rollout.propose(target, origin, begins=begins)
    switch = rollout.record.switch
    assert switch is not None
    rollout.answer_both(Prepared(switch.version, target.digest))
    rollout.answer_both(Applied(switch.version, target.digest, 7))


def test_a_rollout_leaves_one_point_however_many_switches_it_takes():
    rollout = scene.serving()
    rollout.present = Present(100.0, 1.25)
    carry_out(rollout, NEW, Origin.DECIDED)
    rollout.present = Present(101.0, 1.1)
    carry_out(rollout, OTHER, Origin.DECIDED, begins=False)
    assert rollout.record.past == (Served(BASE, OLD, Origin.STARTED, None, 100.0, 1.25),)
    assert (rollout.record.origin, rollout.record.since) == (Origin.DECIDED, 101.0)


def test_a_rollout_that_is_refused_takes_no_points_place():
    rollout = scene.aborted()
    assert rollout.record.past == ()


def test_what_a_rollout_that_was_cut_short_had_reached_is_a_point_too():
    rollout = scene.serving()
    rollout.present = Present(100.0, 1.25)
    carry_out(rollout, NEW, Origin.DECIDED)
    rollout.present = Present(3700.0, 1.1)
    carry_out(rollout, OTHER, Origin.TRIGGERED)
    assert rollout.record.past[1] == Served(FIRST, NEW, Origin.DECIDED, 100.0, 3700.0, 1.1)


def test_a_new_group_remembers_what_the_old_one_had():
    rollout = scene.applied()
    rollout.present = Present(500.0, 1.75)
    rollout.join_both(3, group_id="g2", stream=2, placement=OTHER)
    newest = rollout.record.past[-1]
    assert (newest.placement, newest.until, newest.imbalance) == (NEW, 500.0, 1.75)
    assert (rollout.record.origin, rollout.record.since) == (Origin.STARTED, 500.0)


def test_eighteen_placements_in_two_seconds_do_not_push_out_the_one_of_an_hour_ago():
    days = [(-24 * HOUR, placement(100)), (-HOUR, placement(101)), (0.0, placement(102))]
    burst = [(i / 10, placement(i)) for i in range(1, 41)]
    record = after([*days, *burst], max_points=8)
    assert len(record.past) == 8
    kept = [each.until for each in record.past]
    assert kept[:2] == [-24 * HOUR, -HOUR]
    assert kept[-1] == 4.0


def test_points_become_fewer_the_older_they_are():
    """One an hour for ten days: of each doubling of the age, some are kept."""
    record = after([(hour * HOUR, placement(hour)) for hour in range(240)], max_points=16)
    now = 239.0
    ages = [now - (each.until or 0.0) / HOUR for each in record.past]
    assert len(ages) == 16
    for least, most in ((0, 1), (1, 4), (4, 16), (16, 64), (64, 240)):
        assert any(least <= age < most for age in ages), (least, most, ages)


def test_the_first_placement_of_the_group_and_the_newest_are_always_kept():
    record = after([(float(i), placement(i)) for i in range(100)], max_points=2)
    assert [each.version for each in record.past] == [BASE, Version(1, 99)]


def test_points_of_unknown_time_go_first():
    unknown = [(None, placement(i)) for i in range(1, 7)]
    record = after([*unknown, *((float(i), placement(10 + i)) for i in range(6))], max_points=6)
    assert None not in [each.until for each in record.past if each.version != BASE]


@pytest.mark.parametrize(
    ("targets", "past"),
    [
        ((NEW, OTHER, NEW, OLD), ["1.0", "1.2", "1.3"]),
        # The first placement of the group always keeps generation 0.
        ((NEW, OLD, OTHER), ["1.1", "1.0"]),
    ],
)
def test_a_placement_is_remembered_once(targets: tuple[Placement, ...], past: list[str]):
    record = after((float(i), target) for i, target in enumerate(targets))
    assert [str(served.version) for served in record.past] == past


def test_a_clock_that_goes_back_loses_neither_the_newest_nor_the_number_of_points():
    record = after([(float(-i), placement(i)) for i in range(50)], max_points=4)
    assert len(record.past) == 4
    assert record.past[-1].until == -49.0
