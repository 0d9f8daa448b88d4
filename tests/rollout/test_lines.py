"""Notes become lines from which trimtab_tools.history reads back what they say."""

from __future__ import annotations

import json

import pytest

from trimtab_client import Placement as ClientPlacement
from trimtab_server.domain.placement import Placement
from trimtab_server.domain.version import Version
from trimtab_server.rollout import notes
from trimtab_server.rollout.effects import Cause, Note
from trimtab_server.rollout.lines import line_of
from trimtab_server.rollout.messages import Discarded, Prepared
from trimtab_server.rollout.record import Epoch, Member, Record, Stage, Switch
from trimtab_tools.history import events, read_history

OLD, NEW = (Placement.of([[0, 1, 2, last], [last, 2, 1, 0]], 3, 2) for last in (0, 1))
OLD_READ, NEW_READ = (ClientPlacement.of(each.phy2log, 3, 2) for each in (OLD, NEW))
BASE, FIRST = Version(1, 0), Version(1, 1)
EPOCH = Epoch(1, "g1", {"a": Member(4, (0,)), "b": Member(5, (1,))})
MEMBERS_READ = {"a": events.Member(4, (0,)), "b": events.Member(5, (1,))}
IN_EPOCH = Record(EPOCH, BASE, OLD)
SWITCH = Switch(FIRST, NEW, Stage.OFFERED)
(ABORTED,) = notes.aborted(SWITCH)
# What those write who have no module of notes yet: the server's process, and workers.
WORKER = {"worker": "a", "incarnation": 4}
FLIPPED = {**WORKER, "version": FIRST, "digest": NEW.digest, "step": 8}
IN_FORCE = {**WORKER, "group": "g1", "version": BASE, "digest": OLD.digest}
COUNTED = {"seq": 3, "difference": 20, "gap": 1, "counts": 70}

A = events.Process("a", 4)
WHERE = (1, "")  # the first line, of a deployment without a name


READ_BACK = [
    (Note("started", {"term": 2}), events.Started(*WHERE, 2)),
    (
        notes.epoch_opened(EPOCH, IN_EPOCH),
        events.EpochOpened(*WHERE, 1, "g1", MEMBERS_READ, OLD.digest, OLD_READ),
    ),
    (
        notes.offered(SWITCH, IN_EPOCH),
        events.Offered(*WHERE, FIRST, BASE, NEW.digest, NEW_READ),
    ),
    (
        notes.prepared(Prepared(FIRST, NEW.digest), "a", 4),
        events.Prepared(*WHERE, FIRST, NEW.digest, A),
    ),
    (notes.committed(SWITCH), events.Committed(*WHERE, FIRST, NEW.digest)),
    (notes.commit_sent(SWITCH, "a"), events.CommitSent(*WHERE, FIRST, "a")),
    (notes.aborting(SWITCH, Cause.REFUSED, "no room"), events.Aborting(*WHERE, FIRST, "no room")),
    (ABORTED, events.Aborted(*WHERE, FIRST)),
    (notes.applied(SWITCH), events.Applied(*WHERE, FIRST, NEW.digest)),
    (Note("report", {**WORKER, **COUNTED}), events.Reported(*WHERE, A, 3, 20, 1, 70)),
    (Note("restored", {**WORKER, "counts": 70}), events.Restored(*WHERE, A, 70)),
    (Note("in_force", IN_FORCE), events.InForce(*WHERE, A, "g1", BASE, OLD.digest)),
    (Note("flipped", FLIPPED), events.Flipped(*WHERE, A, FIRST, NEW.digest, 8)),
    (notes.ignored(Discarded(FIRST), None), events.Other(*WHERE, "ignored")),
]
IN_HISTORIES = [note for note, event in READ_BACK if not isinstance(event, events.Other)]


@pytest.mark.parametrize(("note", "event"), READ_BACK, ids=[note.kind for note, _ in READ_BACK])
def test_what_a_note_says_is_read_back_from_its_line(note, event):
    assert list(read_history([line_of(note)])) == [event]


def test_each_kind_that_histories_have_is_among_them():
    assert sorted(note.kind for note in IN_HISTORIES) == sorted(events.KINDS)


NEW_SWITCH = Record(EPOCH, BASE, OLD, last_generation=1, switch=SWITCH)
COMMITTED = Switch(FIRST, NEW, Stage.COMMITTED)


@pytest.mark.parametrize(
    ("record", "event"),
    [
        (IN_EPOCH, events.EpochOpened),
        (NEW_SWITCH, events.Offered),
        (Record(EPOCH, BASE, OLD, last_generation=1, switch=COMMITTED), events.Committed),
        (Record(EPOCH, BASE, OLD, last_generation=1), events.Aborted),
        (Record(EPOCH, FIRST, NEW, last_generation=1), events.Applied),
    ],
)
def test_what_a_restarted_server_notes_again_is_read_as_that(record, event):
    (again,) = read_history(map(line_of, notes.newest(record)))
    assert isinstance(again, events.Again)
    assert isinstance(again.event, event)


@pytest.mark.parametrize("note", IN_HISTORIES, ids=lambda note: note.kind)
def test_a_line_says_of_which_deployment_it_is(note):
    (event,) = read_history([line_of(note, "chat")])
    assert event.deployment == "chat"
    assert "deployment" not in json.loads(line_of(note))


def test_a_note_is_one_line_of_text_whatever_it_says():
    reason = 'refused by "a":\r\n no room\u2028für 3 Experten'
    line = line_of(notes.aborting(SWITCH, Cause.REFUSED, reason))
    assert len(line.splitlines()) == 1
    (event,) = read_history([line.encode()])
    assert event.reason == reason


def test_a_placement_is_written_by_layers_in_little_endian_numbers_of_32_bits():
    line = line_of(notes.offered(SWITCH, IN_EPOCH))
    assert json.loads(line)["placement"] == {
        "experts": 3,
        "gpus": 2,
        "shape": [2, 4],
        # 0 1 2 1 | 1 2 1 0, four bytes each, the lowest first.
        "phy2log": "AAAAAAEAAAACAAAAAQAAAAEAAAACAAAAAQAAAAAAAAA=",
    }


def test_what_has_no_place_in_a_history_is_refused():
    with pytest.raises(TypeError, match="has no place in a history"):
        line_of(Note("aborting", {"version": FIRST, "reason": object()}))
