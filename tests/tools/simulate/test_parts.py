"""The small parts of a fleet: options, targets, the tail of a history, reads of weights."""

from __future__ import annotations

import json
import threading

import numpy as np
import pytest

from trimtab_client import InvalidArgumentError
from trimtab_protocol.version import Version
from trimtab_tools.simulate.checkpoint import Checkpoint
from trimtab_tools.simulate.encoding import decode, encode
from trimtab_tools.simulate.errors import FleetError
from trimtab_tools.simulate.fleet_state import FleetState
from trimtab_tools.simulate.history_tail import HistoryTail
from trimtab_tools.simulate.messages import LeftGroup
from trimtab_tools.simulate.options import FleetOptions
from trimtab_tools.simulate.rank import append_line
from trimtab_tools.simulate.report import make_report
from trimtab_tools.simulate.scenario import Scenario
from trimtab_tools.simulate.supervisor import group_start
from trimtab_tools.simulate.targets import RandomTargets
from trimtab_tools.simulate.weight_reads import WeightReader, WeightServer


def test_by_default_every_rank_has_a_spare_slot():
    assert FleetOptions(ranks=4, experts=10).slots == 4 * (3 + 1)
    assert FleetOptions(ranks=4, experts=10, slots=12).slots_per_rank == 3


@pytest.mark.parametrize(
    ("sizes", "complaint"),
    [
        ({"ranks": 0}, "ranks: 0"),
        ({"ranks": 4, "slots": 34}, "slots: 34 is not a multiple of ranks"),
        ({"ranks": 4, "slots": 28}, "slots: 28 is less than experts"),
        ({"hidden": 4}, "hidden: 4"),
        ({"transfer": "push"}, "transfer: 'push' is not one of"),
        ({"step_seconds": -1.0}, "step_seconds: -1.0"),
    ],
)
def test_impossible_sizes_are_refused(sizes, complaint):
    with pytest.raises(InvalidArgumentError, match=complaint):
        FleetOptions(**sizes)


@pytest.mark.parametrize(
    ("values", "complaint"),
    [
        ({"switches": -1}, "switches: -1"),
        ({"seconds": float("inf")}, "seconds: inf"),
        ({"plan": "best"}, "plan: 'best'"),
    ],
)
def test_impossible_scenarios_are_refused(values, complaint):
    with pytest.raises(InvalidArgumentError, match=complaint):
        Scenario(**values)


def test_targets_are_the_same_in_each_run_and_differ_from_the_placement_before():
    def chain(seed: int) -> list[bytes]:
        options = FleetOptions(ranks=3, layers=2, experts=6, seed=seed)
        targets, placements = RandomTargets(options), [options.untouched]
        for _ in range(20):
            placements.append(targets.after(placements[-1]))
            assert placements[-1] != placements[-2]
        return [placement.digest for placement in placements]

    assert chain(1) == chain(1) != chain(2)


def test_each_layer_expert_and_seed_has_weights_of_its_own():
    checkpoint = Checkpoint(3, 8)
    seen = {checkpoint.weights(layer, e).tobytes() for layer in range(3) for e in range(20)}

    assert len(seen) == 60
    assert Checkpoint(3, 8).weights(2, 7).tobytes() in seen
    assert Checkpoint(4, 8).weights(2, 7).tobytes() not in seen


def test_a_new_group_begins_at_the_step_and_placement_of_the_survivors():
    rows_LR = np.array([[0, 1, 2]], np.int32)
    survivors = {0: LeftGroup(7, Version(1, 2), rows_LR), 3: LeftGroup(7, Version(1, 2), rows_LR)}

    assert group_start(survivors) == (7, rows_LR)
    assert group_start({}) is None


@pytest.mark.parametrize(("step", "rows"), [(8, [[0, 1, 2]]), (7, [[1, 0, 2]])])
def test_survivors_that_differ_are_an_error(step: int, rows: list[list[int]]):
    survivors = {
        0: LeftGroup(7, Version(1, 2), np.array([[0, 1, 2]], np.int32)),
        3: LeftGroup(step, Version(1, 3), np.array(rows, np.int32)),
    }

    with pytest.raises(FleetError, match=rf"differ in .*\(7, '1.2'\).*\({step}, '1.3'\)"):
        group_start(survivors)


def test_a_history_is_read_as_it_grows_and_half_a_line_is_left_for_later(tmp_path):
    path = tmp_path / "history.jsonl"
    tail = HistoryTail(path)
    assert tail.lines("offered") == []
    append_line(path, {"kind": "offered", "version": [1, 1], "digest": b"\1\2"})
    with path.open("a") as file:
        file.write('{"kind": "offered", "versi')
        file.flush()
        assert tail.count("offered") == 1
        file.write('on": [1, 2]}\n')
    append_line(path, {"kind": "aborted", "version": [1, 2]})

    assert [line["version"] for line in tail.lines("offered")] == [[1, 1], [1, 2]]
    assert tail.lines("offered", version=[1, 1]) == [json.loads(path.read_text().split("\n")[0])]
    assert tail.lines("offered", version=[1, 1], digest="ff") == []


@pytest.mark.parametrize(
    ("kind", "complaint"), [("missing", "No such file"), ("folder", "Is a directory")]
)
def test_a_report_without_a_readable_history_has_all_the_rest(tmp_path, kind, complaint):
    path = tmp_path / kind
    if kind == "folder":
        path.mkdir()
    options = FleetOptions(ranks=2)

    report = make_report(FleetState(options), options, HistoryTail(path), ["look"], "")

    assert not report.ok
    (unreadable,) = report.unreadable
    assert unreadable.startswith("history: ")
    assert complaint in unreadable
    assert str(path) in unreadable
    assert (report.verdict, report.alarms, report.trouble) == (None, ("look",), "")


@pytest.mark.parametrize(
    "line",
    [
        {"kind": "shadow"},
        {"kind": "shadow", "step": 1, "moves": 0, "placement": {"experts": 1}},
        {"kind": "shadow", "step": "x", "moves": 0, "placement": None},
    ],
)
def test_a_wrong_line_of_shadow_mode_loses_its_figure_only(tmp_path, line):
    path = tmp_path / "history.jsonl"
    options = FleetOptions(ranks=2)
    of_fleet = {"deployment": options.deployment}
    append_line(path, {**line, **of_fleet})
    append_line(path, {"kind": "decided", "reason": "improved", **of_fleet})
    append_line(path, {"kind": "decided", **of_fleet})

    report = make_report(FleetState(options), options, HistoryTail(path), [], "")

    assert report.unreadable[0].startswith("history: a line of the kind 'shadow' cannot be read: ")
    assert report.decisions == {"improved": 1, "None": 1}
    assert report.verdict is not None


def test_a_report_has_nothing_of_other_deployments_and_of_earlier_runs(tmp_path):
    """A server that the fleet has not started may have others, and one history for all."""
    path = tmp_path / "history.jsonl"
    options = FleetOptions(ranks=2)
    of_fleet = {"deployment": options.deployment}
    append_line(path, {"kind": "decided", "reason": "replanned", **of_fleet})
    tail = HistoryTail(path, only_new=True)
    append_line(path, {"kind": "decided", "reason": "improved", **of_fleet})
    append_line(path, {"kind": "decided", "reason": "balanced", "deployment": "another"})
    append_line(path, {"kind": "shadow", "deployment": "another"})

    report = make_report(FleetState(options), options, tail, [], "")

    assert (report.decisions, report.unreadable) == ({"improved": 1}, ())


def test_lines_of_many_writers_do_not_mix(tmp_path):
    path = tmp_path / "history.jsonl"

    def write(number: int) -> None:
        for _ in range(100):
            append_line(path, {"kind": "flipped", "worker": str(number) * 500})

    threads = [threading.Thread(target=write, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert HistoryTail(path).count("flipped") == 400


def test_encoded_rows_are_decoded_to_the_same_values():
    values_NX = np.arange(12, dtype=np.float32).reshape(4, 3)
    packed = encode(np.array([0, 1, 2, 70000]), np.array([5, 6, 7, 8]), values_NX)
    layer_N, slot_N, again_NX = decode(packed, 3)

    assert (layer_N.tolist(), slot_N.tolist()) == ([0, 1, 2, 70000], [5, 6, 7, 8])
    np.testing.assert_array_equal(again_NX, values_NX)


def test_weights_are_read_from_a_rank_and_from_its_successor(tmp_path):
    def serve(name: str, factor: int) -> str:
        address = str(tmp_path / name)
        WeightServer(address, lambda layer, slot: np.full((2, 2), factor * slot, np.float32))
        return address

    reader = WeightReader(2)
    reader.regroup([serve("a", 1), serve("b", 10)])
    assert reader.read(0, 0, 3).tolist() == [[3, 3], [3, 3]]
    assert reader.read(1, 0, 3).tolist() == [[30, 30], [30, 30]]
    reader.regroup([serve("a2", 100), reader._addresses[1]])

    assert reader.read(0, 0, 3).tolist() == [[300, 300], [300, 300]]


def test_reading_from_a_rank_that_is_gone_is_an_os_error(tmp_path):
    reader = WeightReader(2)
    reader.regroup([str(tmp_path / "nobody")])

    with pytest.raises(FileNotFoundError):
        reader.read(0, 0, 0)


def test_a_rank_that_cannot_read_its_weights_ends_the_connection(tmp_path):
    def refuse(layer: int, slot: int) -> np.ndarray:
        raise ConnectionError("closed")

    WeightServer(str(tmp_path / "a"), refuse)
    reader = WeightReader(2)
    reader.regroup([str(tmp_path / "a")])

    with pytest.raises(ConnectionError, match="rank 0 ended"):
        reader.read(0, 0, 0)
