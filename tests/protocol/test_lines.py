"""Events of a history become lines, from which they are read back."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from trimtab_protocol import history
from trimtab_protocol.history import Event, Member, Process
from trimtab_protocol.lines import decode_lines, encode_line, kind_of
from trimtab_protocol.messages import Discarded, Prepared
from trimtab_protocol.placement import Placement
from trimtab_protocol.version import Version
from trimtab_server.rollout import events
from trimtab_server.rollout.effects import Cause
from trimtab_server.rollout.record import Epoch, Record, Stage, Switch
from trimtab_server.store.codec import decode_record, encode_placement, encode_record

OLD, NEW = (Placement.of([[0, 1, 2, last], [last, 2, 1, 0]], 3, 2) for last in (0, 1))
BASE, FIRST = Version(1, 0), Version(1, 1)
EPOCH = Epoch(1, "g1", {"a": Member(4, (0,)), "b": Member(5, (1,))})
IN_EPOCH = Record(EPOCH, BASE, OLD)
SWITCH = Switch(FIRST, NEW, Stage.OFFERED)
(ABORTED,) = events.aborted(SWITCH)
A = Process("a", 4)

EVENTS = [
    history.Started(2),
    history.Deleted(),
    events.epoch_opened(EPOCH, IN_EPOCH).event,
    events.offered(SWITCH, IN_EPOCH).event,
    events.prepared(Prepared(FIRST, NEW.digest), "a", 4).event,
    events.committed(SWITCH).event,
    events.commit_sent(SWITCH, "a").event,
    events.aborting(SWITCH, Cause.REFUSED, "no room").event,
    ABORTED.event,
    events.applied(SWITCH).event,
    history.Reported(A, 3, 20, 1, 70),
    history.Restored(A, 70),
    history.InForce(A, "g1", BASE, OLD.digest),
    history.Flipped(A, FIRST, NEW.digest, 8),
]


@pytest.mark.parametrize("event", EVENTS, ids=kind_of)
def test_an_event_is_read_back_from_its_line(event: Event) -> None:
    said = replace(event, deployment="chat")

    assert list(decode_lines(["", encode_line(said)])) == [replace(said, line=2)]
    assert "deployment" not in json.loads(encode_line(event))


def test_every_kind_of_event_is_tested() -> None:
    assert [type(event) for event in EVENTS] == list(history.KINDS.values())


def test_the_kind_of_any_other_event_is_read_back() -> None:
    line = encode_line(events.ignored(Discarded(FIRST), None).event)

    assert json.loads(line) == {
        "kind": "ignored",
        "answer": "Discarded",
        "worker": None,
        "version": [1, 1],
    }
    assert list(decode_lines([line])) == [history.Other("ignored", line=1)]


def test_the_cause_of_an_abort_may_be_missing_as_in_older_histories() -> None:
    line = '{"kind": "aborting", "version": [1, 1], "reason": "no room"}'

    assert list(decode_lines([line])) == [history.Aborting(FIRST, "", "no room", line=1)]


NEW_SWITCH = Record(EPOCH, BASE, OLD, last_generation=1, switch=SWITCH)
COMMITTED = Switch(FIRST, NEW, Stage.COMMITTED)


@pytest.mark.parametrize(
    ("record", "kind"),
    [
        (IN_EPOCH, history.EpochOpened),
        (NEW_SWITCH, history.Offered),
        (Record(EPOCH, BASE, OLD, last_generation=1, switch=COMMITTED), history.Committed),
        (Record(EPOCH, BASE, OLD, last_generation=1), history.Aborted),
        (Record(EPOCH, FIRST, NEW, last_generation=1), history.Applied),
    ],
)
def test_a_repeated_event_is_read_as_repeated(record: Record, kind: type[Event]) -> None:
    lines = [encode_line(note.event) for note in events.newest(record)]
    (again,) = decode_lines(lines)

    assert json.loads(lines[0])["again"] is True
    assert isinstance(again, history.Again)
    assert isinstance(again.event, kind)


def test_an_epoch_that_comes_from_the_store_is_written_again() -> None:
    """Its members are no plain dict there."""
    text, placements = encode_record(IN_EPOCH), {OLD.digest: encode_placement(OLD)}
    stored = decode_record(text, placements)

    (note,) = events.newest(stored)
    assert json.loads(encode_line(note.event)) == {
        **json.loads(encode_line(events.epoch_opened(EPOCH, IN_EPOCH).event)),
        "again": True,
    }


def test_an_event_is_one_line_of_text_for_any_values() -> None:
    reason = 'refused by "a":\r\n no room\u2028für 3 Experten'
    line = encode_line(events.aborting(SWITCH, Cause.REFUSED, reason).event)

    assert len(line.splitlines()) == 1
    (event,) = decode_lines([line.encode()])
    assert isinstance(event, history.Aborting)
    assert (event.cause, event.reason) == ("refused", reason)


def test_a_placement_is_written_by_layers_in_little_endian_numbers_of_32_bits() -> None:
    line = encode_line(events.offered(SWITCH, IN_EPOCH).event)

    assert json.loads(line)["placement"] == {
        "experts": 3,
        "gpus": 2,
        "shape": [2, 4],
        # 0 1 2 1 | 1 2 1 0, four bytes each, the lowest first.
        "phy2log": "AAAAAAEAAAACAAAAAQAAAAEAAAACAAAAAQAAAAAAAAA=",
    }


def test_a_value_that_json_cannot_hold_is_refused() -> None:
    with pytest.raises(TypeError, match="cannot be written to a history"):
        encode_line(history.Other("ignored", {"reason": object()}))
