"""The checker of histories: it accepts correct histories, and names planted violations."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Iterable
from itertools import zip_longest
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import trimtab_tools.history
from trimtab_client import InvalidArgumentError, Placement
from trimtab_tools.history import Report, check_history, read_history
from trimtab_tools.history.check import RULES

LAYERS, EXPERTS, GPUS = 2, 3, 2
WORKERS = ("w0", "w1")
PROTOCOL = (Path(__file__).parents[3] / "PROTOCOL.md").read_text()
Line = dict[str, Any]


class Run:
    """Writes the correct history of a deployment.

    Attributes:
        lines: what has been written.
        epoch: the newest.
        incarnations: of the workers' processes.
    """

    def __init__(self, deployment: str | None = None, seed: int = 0) -> None:
        self.lines: list[Line] = []
        self.epoch = 0
        self.incarnations = dict.fromkeys(WORKERS, 0)
        self._deployment = deployment
        self._rng = np.random.default_rng(seed)
        self._generation = 0
        self._applied = [0, 0]
        self._digests: dict[tuple[int, ...], str] = {}
        self._step = 0
        self._seqs: dict[tuple[str, int], int] = {}
        self._counts: dict[tuple[str, int], int] = {}

    def started(self) -> None:
        self.lines.append({"kind": "started"})

    def opened(self, dead: Iterable[str] = WORKERS) -> None:
        """A group forms, in which dead processes have restarted, and its epoch opens."""
        for worker in dead:
            self.incarnations[worker] += 1
        self.epoch += 1
        self._applied = [self.epoch, 0]
        members = {
            worker: {"incarnation": self.incarnations[worker], "gpus": [gpu]}
            for gpu, worker in enumerate(WORKERS)
        }
        group, placement = f"group {self.epoch}", self._place(self._applied)
        self._say("epoch", epoch=self.epoch, group=group, members=members, **placement)
        for worker in WORKERS:
            self._work(worker, "in_force", self._applied, group=group)

    def offered(self) -> list[int]:
        self._generation += 1
        version = [self.epoch, self._generation]
        self._say("offered", version=version, base=self._applied, **self._place(version))
        return version

    def prepared(self, version: list[int], workers: Iterable[str] = WORKERS) -> None:
        for worker in workers:
            self._work(worker, "prepared", version)

    def committed(self, version: list[int]) -> None:
        self._say("committed", version=version, digest=self._digests[*version])
        for worker in WORKERS:
            self._say("commit_sent", version=version, worker=worker)

    def flipped(self, version: list[int]) -> None:
        self._step += 8
        for worker in WORKERS:
            self._work(worker, "flipped", version, step=self._step)
        self._say("applied", version=version, digest=self._digests[*version])
        self._applied = version

    def switched(self) -> None:
        """A switch from offer to flip."""
        version = self.offered()
        self.prepared(version)
        self.committed(version)
        self.flipped(version)

    def refused(self) -> None:
        """A switch that is offered, prepared by some, and aborted."""
        version = self.offered()
        self.prepared(version, WORKERS[:1])
        self._say("aborting", version=version, reason="refused by 'w1'")
        self._say("aborted", version=version)

    def restarted(self) -> None:
        """The server dies over an offer; the one after it presumes the abort."""
        version = self.offered()
        self.prepared(version, WORKERS[1:])
        self.started()
        self._say("aborted", version=version)

    def overtaken(self, *, committed: bool) -> None:
        """A switch ends with its epoch."""
        version = self.offered()
        self.prepared(version)
        if committed:
            self.committed(version)
        else:
            self._say("aborted", version=version)
        self.opened()

    def reported(self, worker: str, difference: int, gap: int = 0) -> None:
        who = worker, self.incarnations[worker]
        self._seqs[who] = self._seqs.get(who, 0) + 1
        self._counts[who] = self._counts.get(who, 0) + difference + gap
        values = {"difference": difference, "gap": gap, "counts": self._counts[who]}
        self._say("report", worker=who[0], incarnation=who[1], seq=self._seqs[who], **values)

    def restored(self, worker: str, lost: int = 0) -> None:
        """A server goes on from what was saved before the last few counts and reports."""
        who = worker, self.incarnations[worker]
        self._counts[who] = max(self._counts.get(who, 0) - lost, 0)
        self._seqs[who] = 0
        self._say("restored", worker=who[0], incarnation=who[1], counts=self._counts[who])

    def _work(self, worker: str, kind: str, version: list[int], **values: Any) -> None:
        who = {"worker": worker, "incarnation": self.incarnations[worker]}
        self._say(kind, **who, version=version, digest=self._digests[*version], **values)

    def _say(self, kind: str, **values: Any) -> None:
        where = {} if self._deployment is None else {"deployment": self._deployment}
        self.lines.append({"kind": kind, **where, **values})

    def _place(self, version: list[int]) -> Line:
        row = [*range(EXPERTS), self._rng.integers(EXPERTS)]
        rows = [self._rng.permutation(row).tolist() for _ in range(LAYERS)]
        digest, placement = recorded(rows)
        self._digests[*version] = digest
        return {"digest": digest, "placement": placement}


def recorded(phy2log: list[list[int]], experts: int = EXPERTS) -> tuple[str, Line]:
    """Digest and record of a placement, which may be wrong."""
    placement = Placement(np.array(phy2log, np.int32), experts, GPUS)
    data = base64.b64encode(placement.phy2log.astype("<i4").tobytes()).decode()
    shape = list(placement.phy2log.shape)
    values = {"experts": experts, "gpus": GPUS, "shape": shape, "phy2log": data}
    return placement.digest.hex(), values


def interleaved(*histories: list[Line]) -> list[Line]:
    """One line of each history in turn, with rising terms of one server."""
    lines = [line for turn in zip_longest(*histories) for line in turn if line is not None]
    return with_terms(lines)


def with_terms(lines: list[Line]) -> list[Line]:
    starts = [line for line in lines if line["kind"] == "started"]
    for term, line in enumerate(starts, start=1):
        line["term"] = term
    return lines


def judge(lines: list[Line], *, complete: bool = False) -> Report:
    return check_history(read_history(map(json.dumps, lines)), complete=complete)


def codes(report: Report) -> set[str]:
    return {violation.invariant for violation in report.violations}


def clean() -> Run:
    """Two epochs, six switches, of which two are aborted, and a restart.

    w0 lives through both epochs; w1 dies between them.
    """
    run = Run("d")
    run.started()
    run.opened()
    run.reported("w0", 10)
    run.reported("w1", 7)
    run.switched()  # 1.1
    run.refused()  # 1.2
    run.reported("w1", 3, gap=2)
    run.restarted()  # 1.3
    run.restored("w0", lost=4)
    run.reported("w0", 5, gap=2)
    run.switched()  # 1.4
    version = run.offered()  # 1.5
    run.prepared(version)
    run.opened(dead=["w1"])
    run.switched()  # 2.6
    return run


def test_a_clean_history_has_no_violations_and_is_counted() -> None:
    lines = with_terms(clean().lines)

    report = judge(lines, complete=True)

    assert report.violations == ()
    assert (report.events, report.deployments, report.epochs) == (len(lines), 1, 2)
    assert (report.offered, report.committed, report.aborted, report.flips) == (6, 3, 2, 6)
    assert report.unplaced == 0
    assert report.other_kinds == {}


def test_deployments_are_checked_separately() -> None:
    """Two deployments have the same versions, with other digests, steps and counts."""
    other, unnamed = Run("e", seed=1), Run(seed=2)
    for run in (other, unnamed):
        run.opened()
        run.switched()
        run.overtaken(committed=True)
        run.reported("w0", 1)

    report = judge(interleaved(clean().lines, other.lines, unnamed.lines), complete=True)

    assert report.violations == ()
    assert (report.deployments, report.epochs) == (3, 6)


STEPS: dict[str, Callable[[Run], None]] = {
    "switch": Run.switched,
    "refuse": Run.refused,
    "restart": Run.restarted,
    "start": Run.started,
    "all die": Run.opened,
    "one dies": lambda run: run.opened(dead=["w0"]),
    "regroup": lambda run: run.opened(dead=[]),
    "overtake": lambda run: run.overtaken(committed=False),
    "overtake committed": lambda run: run.overtaken(committed=True),
    "report": lambda run: run.reported("w0", 3, gap=1),
    "report nothing": lambda run: run.reported("w1", 0),
    "restore": lambda run: run.restored("w0", lost=5),
}
SCRIPTS = st.lists(st.sampled_from(sorted(STEPS)), max_size=12)


def carried_out(script: list[str], deployment: str, seed: int) -> Run:
    run = Run(deployment, seed)
    run.opened()
    for step in script:
        STEPS[step](run)
    return run


@given(scripts=st.tuples(SCRIPTS, SCRIPTS), rng=st.randoms(use_true_random=False), data=st.data())
def test_every_prefix_of_a_clean_history_is_clean(
    scripts: tuple[list[str], list[str]], rng: Random, data: st.DataObject
) -> None:
    runs = [
        carried_out(script, name, n)
        for n, (script, name) in enumerate(zip(scripts, "de", strict=True))
    ]
    turns = [n for n, run in enumerate(runs) for _ in run.lines]
    rng.shuffle(turns)
    rest = [iter(run.lines) for run in runs]
    lines = with_terms([next(rest[turn]) for turn in turns])

    whole = judge(lines, complete=True)
    prefix = judge(lines[: data.draw(st.integers(0, len(lines)))])

    assert whole.violations == prefix.violations == ()
    kinds = [line["kind"] for line in lines]
    assert whole.epochs == kinds.count("epoch") >= 2
    assert whole.offered == kinds.count("offered")
    assert whole.committed == kinds.count("committed")
    assert whole.flips == kinds.count("flipped")


# Planted violations. Each function changes a clean history in one way, and returns the line
# that is to be blamed.

Plant = Callable[[list[Line]], Line]
PLANTS: list[Any] = []


def planted(*expected: str, saying: str) -> Callable[[Plant], Plant]:
    def add(plant: Plant) -> Plant:
        PLANTS.append(pytest.param(plant, set(expected), saying, id=plant.__name__))
        return plant

    return add


def find(lines: list[Line], kind: str, **values: Any) -> Line:
    return next(line for line in lines if line["kind"] == kind and values.items() <= line.items())


def drop(lines: list[Line], *unwanted: Line) -> None:
    lines[:] = [line for line in lines if not any(line is other for other in unwanted)]


def insert(lines: list[Line], line: Line, *, after: Line) -> Line:
    """Insert `line`, or move it where it is in the history already."""
    drop(lines, line)
    index = next(index for index, other in enumerate(lines) if other is after)
    lines.insert(index + 1, line)
    return line


def replace_placement(lines: list[Line], version: list[int], phy2log: list[list[int]]) -> Line:
    """Replace the placement of a version everywhere."""
    digest, placement = recorded(phy2log)
    own = [line for line in lines if line.get("version", [line.get("epoch"), 0]) == version]
    for line in own:
        line.update({"digest": digest} if "digest" in line else {})
    first = next(line for line in own if "placement" in line)
    first["placement"] = placement
    return first


@planted("I1", saying="goes back to 1.1 from 1.4")
def a_version_falls_within_an_epoch(lines: list[Line]) -> Line:
    flip = find(lines, "flipped", version=[1, 4], worker="w0")
    digest = find(lines, "committed", version=[1, 1])["digest"]
    old = {**flip, "kind": "in_force", "group": "group 1", "version": [1, 1], "digest": digest}
    return insert(lines, old, after=flip)


@planted("I1", saying="'w0' (incarnation 1) goes back to 1.4 from 2.0")
def a_version_falls_across_epochs(lines: list[Line]) -> Line:
    flip = find(lines, "flipped", version=[1, 4], worker="w0")
    return insert(lines, flip | {}, after=find(lines, "in_force", version=[2, 0], worker="w0"))


@planted("I2", saying="1.1 has digest 000000000000, but ")
def a_worker_flips_to_another_digest(lines: list[Line]) -> Line:
    flip = find(lines, "flipped", version=[1, 1], worker="w1")
    flip["digest"] = "0" * 64
    return flip


@planted("I2", saying="2.0 has digest 000000000000, but ")
def a_worker_serves_with_another_digest_than_its_epoch(lines: list[Line]) -> Line:
    line = find(lines, "in_force", version=[2, 0], worker="w1")
    line["digest"] = "0" * 64
    return line


@planted("I2", saying="but that of its placement is")
def a_placement_does_not_match_its_digest(lines: list[Line]) -> Line:
    offer = find(lines, "offered", version=[1, 1])
    offer["placement"] = offer["placement"] | {"gpus": 1}
    return offer


@planted("I2", saying="but that of its placement is")
def the_placement_of_an_epoch_does_not_match_its_digest(lines: list[Line]) -> Line:
    epoch = find(lines, "epoch", epoch=1)
    epoch["placement"] = recorded([[0, 1, 2, 0], [2, 2, 1, 0]])[1]
    return epoch


@planted("I3", saying="Commit of 1.1 is sent to 'w0' before it is durable")
def a_commit_is_sent_too_early(lines: list[Line]) -> Line:
    prepared = find(lines, "prepared", version=[1, 1], worker="w1")
    return insert(lines, find(lines, "commit_sent", version=[1, 1]), after=prepared)


@planted("I3", saying="'w0' (incarnation 1) flips to 1.1, which is not committed")
def a_flip_comes_before_the_commit(lines: list[Line]) -> Line:
    flip = find(lines, "flipped", version=[1, 1], worker="w0")
    return insert(lines, flip, after=find(lines, "prepared", version=[1, 1], worker="w1"))


@planted("I3", saying="'w0' (incarnation 1) serves with 1.2, which is not committed")
def a_worker_serves_with_an_aborted_version(lines: list[Line]) -> Line:
    prepared = find(lines, "prepared", version=[1, 2], worker="w0")
    line = {**prepared, "kind": "in_force", "group": "group 1"}
    return insert(lines, line, after=find(lines, "aborted", version=[1, 2]))


@planted("I4", saying="which 'w1' (incarnation 1) has not prepared")
def a_commit_lacks_a_member(lines: list[Line]) -> Line:
    drop(lines, find(lines, "prepared", version=[1, 1], worker="w1"))
    return find(lines, "committed", version=[1, 1])


@planted("I4", saying="which 'w1' (incarnation 1) has not prepared")
def a_member_prepares_after_the_commit(lines: list[Line]) -> Line:
    commit = find(lines, "committed", version=[1, 1])
    insert(lines, find(lines, "prepared", version=[1, 1], worker="w1"), after=commit)
    return commit


@planted("I4", saying="which 'w1' (incarnation 2) has not prepared")
def a_process_that_is_gone_has_prepared(lines: list[Line]) -> Line:
    find(lines, "prepared", version=[2, 6], worker="w1")["incarnation"] = 1
    return find(lines, "committed", version=[2, 6])


@planted("I2", "I4", saying="which 'w0' (incarnation 1) has not prepared")
def a_member_prepares_another_digest(lines: list[Line]) -> Line:
    find(lines, "prepared", version=[1, 1], worker="w0")["digest"] = "0" * 64
    return find(lines, "committed", version=[1, 1])


@planted("I4", saying="1.1 is committed, but line")
def an_abort_begins_before_the_commit(lines: list[Line]) -> Line:
    aborting = find(lines, "aborting", version=[1, 2]) | {"version": [1, 1]}
    insert(lines, aborting, after=find(lines, "prepared", version=[1, 1]))
    return find(lines, "committed", version=[1, 1])


@planted("I4", saying="1.1 is committed, but line")
def an_abort_is_durable_before_the_commit(lines: list[Line]) -> Line:
    aborted = find(lines, "aborted", version=[1, 2]) | {"version": [1, 1]}
    insert(lines, aborted, after=find(lines, "prepared", version=[1, 1], worker="w1"))
    return find(lines, "committed", version=[1, 1])


@planted("I4", saying="1.1 is aborted, but line")
def an_abort_begins_after_the_commit(lines: list[Line]) -> Line:
    aborting = find(lines, "aborting", version=[1, 2]) | {"version": [1, 1]}
    return insert(lines, aborting, after=find(lines, "committed", version=[1, 1]))


@planted("I4", saying="1.1 is aborted, but line")
def an_abort_is_durable_after_the_commit(lines: list[Line]) -> Line:
    aborted = find(lines, "aborted", version=[1, 2]) | {"version": [1, 1]}
    return insert(lines, aborted, after=find(lines, "committed", version=[1, 1]))


@planted("I4", saying="1.1 is aborted, but line")
def an_applied_switch_is_aborted(lines: list[Line]) -> Line:
    aborted = find(lines, "aborted", version=[1, 2]) | {"version": [1, 1]}
    return insert(lines, aborted, after=find(lines, "applied", version=[1, 1]))


@planted("I4", "P4", saying="1.1 is committed, but its epoch was never opened")
def a_commit_comes_before_the_first_epoch(lines: list[Line]) -> Line:
    commit = find(lines, "committed", version=[1, 1]) | {}
    return insert(lines, commit, after=find(lines, "started"))


@planted("I5", saying="flips to 1.4 at step 17, but 'w0' (incarnation 1) at step 16")
def a_rank_flips_at_another_step(lines: list[Line]) -> Line:
    flip = find(lines, "flipped", version=[1, 4], worker="w1")
    flip["step"] += 1
    return flip


@planted("I6", saying="1.4 is based on 1.0, but 1.1 was applied last")
def an_offer_is_on_an_old_version(lines: list[Line]) -> Line:
    offer = find(lines, "offered", version=[1, 4])
    offer["base"] = [1, 0]
    return offer


@planted("I6", saying="1.4 is based on 1.3, but 1.1 was applied last")
def an_offer_is_on_an_aborted_version(lines: list[Line]) -> Line:
    offer = find(lines, "offered", version=[1, 4])
    offer["base"] = [1, 3]
    return offer


@planted("I6", saying="2.6 is based on 1.4, but 2.0 was applied last")
def an_offer_is_on_a_version_of_an_old_epoch(lines: list[Line]) -> Line:
    offer = find(lines, "offered", version=[2, 6])
    offer["base"] = [1, 4]
    return offer


@planted("P3", saying="1.2 is offered, but generation 2 was used before")
def a_generation_is_used_again_after_its_abort(lines: list[Line]) -> Line:
    offer, aborted = (find(lines, kind, version=[1, 2]) for kind in ("offered", "aborted"))
    again = insert(lines, offer | {}, after=aborted)
    insert(lines, aborted | {}, after=again)
    return again


@planted("P3", saying="2.1 is offered, but generation 5 was used before")
def a_generation_is_used_again_in_a_later_epoch(lines: list[Line]) -> Line:
    for line in lines:
        if line.get("version") == [2, 6]:
            line["version"] = [2, 1]
    return find(lines, "offered", version=[2, 1])


@planted("P3", saying="2.0 is offered, but generation 5 was used before")
def generation_0_is_offered(lines: list[Line]) -> Line:
    epoch = find(lines, "epoch", epoch=2)
    values = {"kind": "offered", "version": [2, 0], "base": [2, 0], "digest": epoch["digest"]}
    offer = insert(lines, {"deployment": "d", **values}, after=epoch)
    insert(lines, find(lines, "aborted") | {"version": [2, 0]}, after=offer)
    return offer


@planted("I6", "P3", saying="1.6 is offered in epoch 1, but the newest is 2")
def an_offer_is_for_an_old_epoch(lines: list[Line]) -> Line:
    offer = find(lines, "offered", version=[1, 5]) | {"version": [1, 6]}
    return insert(lines, offer, after=find(lines, "in_force", version=[2, 0]))


@planted("I6", "P3", saying="1.1 is offered in epoch 1, but there is none yet")
def an_offer_comes_before_the_first_epoch(lines: list[Line]) -> Line:
    offer = find(lines, "offered", version=[1, 1]) | {}
    return insert(lines, offer, after=find(lines, "started"))


@planted("I7", saying="counts 12, but 7 before + difference 4 + gap 2 are 13")
def too_much_is_added(lines: list[Line]) -> Line:
    report = find(lines, "report", worker="w1", seq=2)
    report["difference"] += 1
    return report


@planted("I7", saying="counts 12, but 7 before + difference 3 + gap 0 are 10")
def missed_tokens_are_not_recorded(lines: list[Line]) -> Line:
    report = find(lines, "report", worker="w1", seq=2)
    report["gap"] = 0
    return report


@planted("I7", saying="report 2 of 'w1' (incarnation 1) has a gap of -2")
def a_gap_is_negative(lines: list[Line]) -> Line:
    report = find(lines, "report", worker="w1", seq=2)
    report.update(difference=7, gap=-2)
    return report


@planted("I7", saying="report 2 of 'w1' (incarnation 1) has a difference of -1")
def a_difference_is_negative(lines: list[Line]) -> Line:
    report = find(lines, "report", worker="w1", seq=2)
    report.update(difference=-1, gap=6)
    return report


@planted("I7", saying="is accepted after report 1")
def a_report_is_accepted_twice(lines: list[Line]) -> Line:
    report = find(lines, "report", worker="w1", seq=2)
    report["seq"] = 1
    return report


@planted("I7", saying="counts 13, but 10 before + difference 5 + gap 2 are 17")
def a_baseline_is_not_restored(lines: list[Line]) -> Line:
    drop(lines, find(lines, "restored"))
    # Without it, that report would come again as well: let that be.
    report = find(lines, "report", counts=13)
    report["seq"] = 2
    return report


@planted("I7", saying="counts 13, but 5 before + difference 5 + gap 2 are 12")
def a_restored_baseline_is_not_the_one_in_use(lines: list[Line]) -> Line:
    find(lines, "restored")["counts"] = 5
    return find(lines, "report", counts=13)


@planted("I8", saying="1.1: layer 1: expert 2 has no slot")
def the_last_expert_of_an_offer_has_no_slot(lines: list[Line]) -> Line:
    return replace_placement(lines, [1, 1], [[0, 1, 2, 0], [0, 1, 1, 0]])


@planted("I8", saying="2.0: layer 0: expert 0 has no slot")
def the_first_expert_of_an_epoch_has_no_slot(lines: list[Line]) -> Line:
    return replace_placement(lines, [2, 0], [[1, 1, 2, 2], [2, 0, 1, 0]])


@planted("I8", saying="1.4: layer 0: expert 1 has no slot")
def an_expert_between_others_has_no_slot(lines: list[Line]) -> Line:
    return replace_placement(lines, [1, 4], [[0, 0, 2, 2], [2, 0, 1, 0]])


@planted("I8", saying="1.1: layer 1, slot 3: 3 is not an expert in [0, 3)")
def a_slot_has_an_expert_beyond_the_last(lines: list[Line]) -> Line:
    return replace_placement(lines, [1, 1], [[0, 1, 2, 0], [0, 1, 2, 3]])


@planted("I8", saying="1.1: layer 0, slot 0: -1 is not an expert in [0, 3)")
def a_slot_has_no_expert(lines: list[Line]) -> Line:
    return replace_placement(lines, [1, 1], [[-1, 0, 1, 2], [0, 1, 2, 0]])


@planted("P1", saying="the server starts in term 1 after term 1 in line 1")
def a_term_is_used_twice(lines: list[Line]) -> Line:
    started = find(lines, "started", term=2)
    started["term"] = 1
    return started


@planted("P1", saying="the server starts in term 0 after term 1 in line 1")
def a_term_falls(lines: list[Line]) -> Line:
    started = find(lines, "started", term=2)
    started["term"] = 0
    return started


@planted("P2", saying="epoch 3 follows epoch 1")
def an_epoch_is_left_out(lines: list[Line]) -> Line:
    epoch = find(lines, "epoch", epoch=2)
    epoch["epoch"] = 3
    for line in lines:
        for key in ("version", "base"):
            if line.get(key, [0])[0] == 2:
                line[key] = [3, line[key][1]]
    return epoch


@planted("P2", saying="group 'group 1' opens epoch 2, but has had epoch 1")
def a_group_has_two_epochs(lines: list[Line]) -> Line:
    epoch = find(lines, "epoch", epoch=2)
    for line in lines:
        if line.get("group") == "group 2":
            line["group"] = "group 1"
    return epoch


@planted("P2", saying="epoch 2: GPU 0 is owned by 'w0' and 'w1'")
def a_gpu_is_owned_twice(lines: list[Line]) -> Line:
    epoch = find(lines, "epoch", epoch=2)
    epoch["members"]["w1"]["gpus"] = [0, 1]
    return epoch


@planted("P2", saying="epoch 2: GPU 1 is owned by 'w0' and 'w1'")
def a_gpu_is_owned_twice_where_no_placement_is_recorded(lines: list[Line]) -> Line:
    epoch = find(lines, "epoch", epoch=2)
    epoch["members"]["w0"]["gpus"] = [1]
    del epoch["placement"]
    return epoch


@planted("P2", saying="epoch 2: no member owns GPU 1")
def a_gpu_has_no_owner(lines: list[Line]) -> Line:
    epoch = find(lines, "epoch", epoch=2)
    epoch["members"]["w1"]["gpus"] = []
    return epoch


@planted("P2", saying="epoch 2: 'w1' owns GPU 2 of only 2 GPUs")
def a_gpu_is_not_in_the_placement(lines: list[Line]) -> Line:
    epoch = find(lines, "epoch", epoch=2)
    epoch["members"]["w1"]["gpus"] = [1, 2]
    return epoch


@planted("P2", saying="epoch 3 has no members")
def an_epoch_has_no_members(lines: list[Line]) -> Line:
    epoch = find(lines, "epoch", epoch=2)
    empty: Line = {"epoch": 3, "group": "group 3", "members": {}, "placement": None}
    return insert(lines, epoch | empty, after=lines[-1])


@planted("P2", saying="'w2' (incarnation 1) serves with 1.0, but is not a member of its epoch")
def a_stranger_serves(lines: list[Line]) -> Line:
    line = find(lines, "in_force", version=[1, 0])
    return insert(lines, line | {"worker": "w2"}, after=line)


@planted("P2", saying="'w1' (incarnation 1) serves with 2.6, but is not a member of its epoch")
def a_process_that_is_gone_flips(lines: list[Line]) -> Line:
    flip = find(lines, "flipped", version=[2, 6], worker="w1")
    return insert(lines, flip | {"incarnation": 1}, after=flip)


@planted("P2", saying="in group 'group 1', but the epoch belongs to group 'group 2'")
def a_worker_serves_in_another_group(lines: list[Line]) -> Line:
    line = find(lines, "in_force", version=[2, 0], worker="w0")
    line["group"] = "group 1"
    return line


@planted("P2", saying="'w0' (incarnation 1) serves with 2.0, but its epoch was never opened")
def a_worker_serves_before_its_epoch_is_open(lines: list[Line]) -> Line:
    early = find(lines, "in_force", version=[2, 0], worker="w0")
    return insert(lines, early, after=find(lines, "offered", version=[1, 5]))


@planted("P2", saying="1.5 is committed, but epoch 2 is the newest")
def a_switch_of_an_old_epoch_is_committed(lines: list[Line]) -> Line:
    digest = find(lines, "offered", version=[1, 5])["digest"]
    commit = find(lines, "committed") | {"version": [1, 5], "digest": digest}
    return insert(lines, commit, after=find(lines, "epoch", epoch=2))


@planted("P2", saying="1.4 is committed, but epoch 2 is the newest")
def a_commit_of_an_old_epoch_is_sent(lines: list[Line]) -> Line:
    sent = find(lines, "commit_sent", version=[1, 4])
    return insert(lines, sent, after=find(lines, "epoch", epoch=2))


@planted("P4", saying="1.3 is offered while the switch to 1.2 is open since line")
def an_offer_comes_while_one_aborts(lines: list[Line]) -> Line:
    drop(lines, find(lines, "aborted", version=[1, 2]))
    return find(lines, "offered", version=[1, 3])


@planted("P4", saying="1.2 is offered while the switch to 1.1 is open since line")
def an_offer_comes_while_one_is_committed(lines: list[Line]) -> Line:
    # Its base is right by then, and it stands just before the line that closes the switch.
    offer = find(lines, "offered", version=[1, 2])
    applied = find(lines, "applied", version=[1, 1])
    offer["base"] = [1, 0]
    insert(lines, offer, after=find(lines, "flipped", version=[1, 1], worker="w1"))
    drop(lines, applied, find(lines, "aborting"), find(lines, "aborted", version=[1, 2]))
    for line in lines:
        if line.get("base") == [1, 1]:
            line["base"] = [1, 0]
    return offer


@planted("P4", saying="1.1 is committed, but was never offered")
def a_switch_is_committed_that_was_never_offered(lines: list[Line]) -> Line:
    drop(lines, find(lines, "offered", version=[1, 1]))
    return find(lines, "committed", version=[1, 1])


@planted("P4", saying="1.1 is committed, but was committed before in line")
def a_switch_is_committed_twice(lines: list[Line]) -> Line:
    commit = find(lines, "committed", version=[1, 1])
    return insert(lines, commit | {}, after=commit)


@planted("I4", "P4", saying="1.2 is committed while the switch to 1.4 is open")
def an_aborted_switch_is_committed_while_another_is_open(lines: list[Line]) -> Line:
    digest = find(lines, "offered", version=[1, 2])["digest"]
    commit = find(lines, "committed") | {"version": [1, 2], "digest": digest}
    return insert(lines, commit, after=find(lines, "offered", version=[1, 4]))


@planted("P4", saying="2.6 is applied, but is not an open switch that is committed")
def a_switch_is_applied_that_was_never_committed(lines: list[Line]) -> Line:
    kinds = ("committed", "commit_sent", "flipped")
    drop(lines, *(x for x in lines if x["kind"] in kinds and x["version"] == [2, 6]))
    return find(lines, "applied", version=[2, 6])


@planted("P4", saying="1.1 is applied, but is not an open switch that is committed")
def a_switch_is_applied_twice(lines: list[Line]) -> Line:
    applied = find(lines, "applied", version=[1, 1])
    return insert(lines, applied | {}, after=applied)


@planted("P4", saying="1.1 is applied, but is not an open switch that is committed")
def an_old_switch_is_applied_again_over_another(lines: list[Line]) -> Line:
    applied = find(lines, "applied", version=[1, 1])
    return insert(lines, applied | {}, after=find(lines, "commit_sent", version=[1, 4]))


@planted("P4", saying="1.4 is applied, but is not an open switch that is committed")
def a_switch_is_applied_again_in_the_next_epoch(lines: list[Line]) -> Line:
    applied = find(lines, "applied", version=[1, 4])
    return insert(lines, applied | {}, after=find(lines, "in_force", version=[2, 0]))


@planted("P4", saying="1.4 is applied, but 'w1' (incarnation 1) has not flipped to it")
def a_switch_is_applied_before_the_last_flip(lines: list[Line]) -> Line:
    applied = find(lines, "applied", version=[1, 4])
    insert(lines, find(lines, "flipped", version=[1, 4], worker="w1"), after=applied)
    return applied


@planted("P4", saying="2.6 is applied, but 'w1' (incarnation 2) has not flipped to it")
def a_switch_is_applied_without_a_process_that_only_said_that_it_serves(lines: list[Line]) -> Line:
    drop(lines, find(lines, "flipped", version=[2, 6], worker="w1"))
    return find(lines, "applied", version=[2, 6])


def test_a_server_that_has_lost_its_store_may_use_generations_again() -> None:
    """Its terms restart, which P1 reports. Generations of the lost store do not count."""
    run = clean()
    run.started()
    run.opened()
    run._generation = 0
    run.switched()  # 3.1
    lines = with_terms(run.lines)
    lines[-1 - lines[::-1].index(find(lines[::-1], "started"))]["term"] = 1

    assert codes(judge(lines)) == {"P1"}


@pytest.mark.parametrize(("plant", "expected", "saying"), PLANTS)
def test_a_planted_violation_is_found_and_named(
    plant: Plant, expected: set[str], saying: str
) -> None:
    lines, other = with_terms(clean().lines), Run("e", seed=1)
    other.opened()
    other.switched()
    assert judge([*lines, *other.lines], complete=True).violations == ()

    blamed = plant(lines)
    lines += other.lines
    report = judge(lines)

    assert codes(report) == expected
    assert {violation.deployment for violation in report.violations} == (
        {""} if expected == {"P1"} else {"d"}
    )
    (told,) = [v for v in report.violations if saying in v.message]
    assert lines[told.line - 1] is blamed


@pytest.mark.parametrize(
    "plant",
    [
        a_worker_flips_to_another_digest,
        a_rank_flips_at_another_step,
        an_offer_is_on_an_old_version,
        too_much_is_added,
        a_report_is_accepted_twice,
        an_old_switch_is_applied_again_over_another,
        a_switch_is_applied_again_in_the_next_epoch,
    ],
)
def test_one_fault_is_reported_once(plant: Plant) -> None:
    """Later lines are compared with the correct state, as far as that is known."""
    lines = with_terms(clean().lines)
    plant(lines)

    assert len(judge(lines, complete=True).violations) == 1


def test_every_rule_has_a_planted_violation() -> None:
    tried = set().union(*(expected for _, expected, _ in (plant.values for plant in PLANTS)))

    assert tried == {*RULES, "P1"}


def until(lines: list[Line], last: Line) -> list[Line]:
    index = next(index for index, line in enumerate(lines) if line is last)
    return lines[: index + 1]


@pytest.mark.parametrize(
    ("last", "saying"),
    [
        ("offered", "the switch to 2.6 is still offered at the end"),
        ("commit_sent", "the switch to 2.6 is still committed at the end"),
    ],
)
def test_a_switch_that_is_open_at_the_end_of_a_complete_run_is_reported(
    last: str, saying: str
) -> None:
    lines = with_terms(clean().lines)
    lines = until(lines, find(lines, last, version=[2, 6]))

    assert judge(lines).violations == ()
    (violation,) = judge(lines, complete=True).violations

    assert violation.invariant == "liveness"
    assert violation.message == saying
    assert lines[violation.line - 1] is find(lines, "offered", version=[2, 6])


@pytest.mark.parametrize(
    ("worker", "kind", "version", "saying"),
    [
        ("w0", "flipped", [1, 4], "'w0' (incarnation 1) is at 1.4 at the end, but 2.0 was applied"),
        ("w1", "epoch", None, "'w1' (incarnation 2) never served in epoch 2"),
    ],
)
def test_a_member_that_is_behind_at_the_end_of_a_complete_run_is_reported(
    worker: str, kind: str, version: list[int] | None, saying: str
) -> None:
    lines = with_terms(clean().lines)
    lines = until(lines, find(lines, "in_force", version=[2, 0], worker="w1"))
    drop(lines, find(lines, "in_force", version=[2, 0], worker=worker))

    assert judge(lines).violations == ()
    (violation,) = judge(lines, complete=True).violations

    assert violation.invariant == "liveness"
    assert saying in violation.message
    blamed = {"worker": worker, "version": version} if version else {"epoch": 2}
    assert lines[violation.line - 1] is find(lines, kind, **blamed)


def test_a_history_of_the_server_alone_needs_no_lines_of_workers() -> None:
    lines = with_terms(clean().lines)
    lines = [line for line in lines if line["kind"] not in ("in_force", "flipped")]

    report = judge(lines, complete=True)

    assert report.violations == ()
    assert (report.flips, report.committed) == (0, 3)


def test_a_deployment_without_an_epoch_is_at_rest() -> None:
    report = judge([find(clean().lines, "report")], complete=True)

    assert report.violations == ()
    assert (report.deployments, report.epochs) == (1, 0)


def test_versions_without_a_placement_are_counted() -> None:
    lines = with_terms(clean().lines)
    for version in ([1, 1], [1, 4]):
        del find(lines, "offered", version=version)["placement"]

    report = judge(lines)

    assert report.violations == ()
    assert report.unplaced == 2


def test_a_history_may_begin_with_a_later_epoch() -> None:
    lines = with_terms(clean().lines)
    first = find(lines, "epoch", epoch=2)

    report = judge(lines[next(n for n, line in enumerate(lines) if line is first) :], complete=True)

    assert report.violations == ()
    assert report.offered == 1


DURABLE = [("epoch", 2), ("offered", 3), ("committed", 2), ("aborted", 2), ("applied", 2)]


def again(lines: list[Line], kind: str, number: int, *, lost: bool) -> Line:
    """The server dies after a save, before or after it has written the event."""
    line = [line for line in lines if line["kind"] == kind][number - 1]
    started = insert(lines, {"kind": "started"}, after=line)
    noted = insert(lines, line | {"again": True}, after=started)
    if lost:
        drop(lines, line)
    with_terms(lines)
    return noted


@pytest.mark.parametrize(("kind", "number"), DURABLE)
@pytest.mark.parametrize("lost", [False, True])
def test_an_event_that_a_restarted_server_repeats_counts_once(
    kind: str, number: int, lost: bool
) -> None:
    lines = with_terms(clean().lines)
    expected = judge(lines, complete=True)

    again(lines, kind, number, lost=lost)
    report = judge(lines, complete=True)

    assert report.violations == ()
    assert report.events == len(lines)
    for count in ("epochs", "offered", "committed", "aborted", "flips", "unplaced"):
        assert getattr(report, count) == getattr(expected, count)


@pytest.mark.parametrize(("kind", "number"), [case for case in DURABLE if case[0] != "aborted"])
@pytest.mark.parametrize("lost", [False, True])
def test_a_repeated_event_has_the_same_digest(kind: str, number: int, lost: bool) -> None:
    lines = with_terms(clean().lines)
    noted = again(lines, kind, number, lost=lost)
    noted["digest"] = "0" * 64

    told = {v.invariant: v.line for v in reversed(judge(lines).violations)}

    assert "I2" in told
    if not lost:
        assert told.keys() == {"I2"}
        assert lines[told["I2"] - 1] is noted


def test_a_commit_that_the_restarted_server_has_lost_is_reported() -> None:
    lines = with_terms(clean().lines)
    aborted = find(lines, "aborted") | {"version": [1, 4], "again": True}
    insert(lines, aborted, after=find(lines, "committed", version=[1, 4]))

    (violation,) = judge(lines).violations

    assert violation.invariant == "I4"
    assert lines[violation.line - 1] is aborted


def test_lines_of_other_kinds_are_counted_and_not_judged() -> None:
    lines = with_terms(clean().lines)
    ignored = {"kind": "ignored", "version": "of any form", "answer": "Prepared"}

    report = judge([*lines, ignored, ignored, {"kind": "comitted"}])

    assert report.violations == ()
    assert report.other_kinds == {"ignored": 2, "comitted": 1}
    assert report.deployments == 1


def test_other_keys_and_blank_lines_are_ignored_and_lines_may_be_bytes() -> None:
    text = b'\n  \n{"kind": "started", "term": 3, "deployment": "d", "pid": [7]}\n'

    (event,) = read_history(text.splitlines(keepends=True))

    assert event.line == 3
    assert vars(event)["term"] == 3


def test_events_are_read_as_they_come() -> None:
    events = read_history(iter(['{"kind": "started", "term": 1}', "no JSON"]))

    assert next(events).line == 1
    with pytest.raises(InvalidArgumentError, match="line 2: is not JSON"):
        next(events)


def test_a_violation_reads_as_one_line() -> None:
    lines = with_terms(clean().lines)
    flip = a_rank_flips_at_another_step(lines)

    (violation,) = judge(lines).violations

    number = next(n for n, line in enumerate(lines, start=1) if line is flip)
    assert str(violation) == f"line {number}: I5: d: {violation.message}"


PLACEMENT = recorded([[0, 1, 2, 0], [0, 1, 2, 1]])[1]


def bad(kind: str, **values: Any) -> str:
    """A line of this kind that is correct except for these values; ... removes a key."""
    line = find(with_terms(clean().lines), kind)
    return json.dumps({key: v for key, v in {**line, **values}.items() if v is not ...})


def but(**values: Any) -> Line:
    return {**PLACEMENT, **values}


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ('{"kind": "started", "term": 1', "is not JSON: "),
        (b'{"kind": "\xff"}', "is not JSON: "),
        ("[" * 100_000, "is not JSON: "),
        ("[1, 2]", "[1, 2] is not a JSON object"),
        ("{}", "has no 'kind'"),
        ('{"kind": 3}', ": kind: 3 is not a string"),
        ('{"kind": "ignored", "deployment": 3}', ": deployment: 3 is not a string"),
        (bad("aborting", deployment=None), ": deployment: None is not a string"),
        (bad("aborting", again=1), ": again: 1 is neither true nor false"),
        (bad("started", term=...), "has no 'term'"),
        (bad("started", term="1"), ": term: '1' is not an integer"),
        (bad("started", term=True), ": term: True is not an integer"),
        (bad("started", term=-1), ": term: -1 is not in [0, inf]"),
        (bad("epoch", epoch=1.0), ": epoch: 1.0 is not an integer"),
        (bad("epoch", group=None), ": group: None is not a string"),
        (bad("epoch", members=[]), ": members: [] is not an object"),
        (bad("epoch", members={"w": 1}), ": members['w']: 1 is not an object"),
        (bad("epoch", members={"w": {}}), ": members['w']: has no 'incarnation'"),
        (bad("epoch", members={"w": {"incarnation": 1, "gpus": 0}}), "gpus: 0 is not a list"),
        (bad("epoch", members={"w": {"incarnation": 1, "gpus": [-1]}}), "gpus: -1 is not in"),
        (bad("aborting", version="1.1"), ": version: '1.1' is not [epoch, generation]"),
        (bad("aborting", version=[1]), ": version: [1] is not [epoch, generation]"),
        (bad("aborting", version=[1, -1]), ": version: -1 is not in [0, inf]"),
        (bad("aborting", reason=...), "has no 'reason'"),
        (bad("offered", base=...), "has no 'base'"),
        (bad("offered", digest="ab"), ": digest: 'ab' is not a SHA-256"),
        (bad("offered", digest="xy" * 32), "is not a SHA-256 of 64 hexadecimal digits"),
        (bad("offered", digest="ab " * 32), "is not a SHA-256 of 64 hexadecimal digits"),
        (bad("offered", placement=[1]), ": placement: [1] is not an object"),
        (bad("offered", placement={}), ": placement: has no 'experts'"),
        (bad("offered", placement=but(experts=0)), ": placement: experts: 0 is not in [1, "),
        (bad("offered", placement=but(experts=2**32)), "placement: experts: 4294967296 is not in"),
        (bad("offered", placement=but(gpus=3)), "gpus: 3 does not divide the number of slots (4)"),
        (bad("offered", placement=but(shape=[8])), "placement: shape: [8] is not [L, R]"),
        (bad("offered", placement=but(shape=[0, 4])), "placement: shape: [0, 4] is not [L, R]"),
        (bad("offered", placement=but(shape=[3, 4])), "phy2log: 32 bytes are not int32 [3, 4]"),
        (bad("offered", placement=but(phy2log="#")), ": placement: phy2log: is not base64: "),
        (bad("offered", placement=but(phy2log="ä")), ": placement: phy2log: is not base64: "),
        (bad("offered", placement=but(phy2log=[0])), "phy2log: [0] is not a string"),
        (bad("report", counts=None), ": counts: None is not an integer"),
        (bad("report", gap=...), "has no 'gap'"),
        (bad("flipped", worker=7), ": worker: 7 is not a string"),
        (bad("flipped", incarnation=...), "has no 'incarnation'"),
        (bad("flipped", step=[8]), ": step: [8] is not an integer"),
    ],
)
def test_a_bad_line_is_named(line: str | bytes, complaint: str) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        list(read_history([bad("started"), "", line]))

    assert str(caught.value).startswith("line 3: ")
    assert complaint in str(caught.value)
    (violation,) = caught.value.field_violations
    assert violation.field.startswith("line 3")


def test_a_long_value_is_cut_short() -> None:
    with pytest.raises(InvalidArgumentError, match=re.escape("...")) as caught:
        list(read_history([json.dumps(list(range(1000)))]))

    assert len(str(caught.value)) < 120


@pytest.mark.parametrize("text", [trimtab_tools.history.__doc__, PROTOCOL])
def test_the_documented_rules_are_those_that_are_checked(text: str) -> None:
    codes = r"I\d|liveness" if text is PROTOCOL else r"I\d|P\d|liveness"
    documented = set(re.findall(rf"^\| ({codes}) \|", text, re.MULTILINE))
    judged = {code for code in (*RULES, "P1", "liveness") if re.fullmatch(codes, code)}

    assert documented == judged
