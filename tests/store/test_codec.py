"""Encoding and decoding of records, placements and counters."""

from __future__ import annotations

import json
import struct
from dataclasses import fields, replace

import numpy as np
import pytest
from hypothesis import given

from tests.store.scenes import FIRST, NEW, OLD, PINNED, SWITCHING, counters, plain, plain_counters
from tests.store.strategies import placements, records, saved_counters
from trimtab_protocol.history import Member
from trimtab_protocol.placement import Placement
from trimtab_server.domain.errors import InvalidArgumentError
from trimtab_server.rollout.record import Epoch, Record, Served, Switch
from trimtab_server.store.codec import (
    decode_counters,
    decode_placement,
    decode_record,
    encode_counters,
    encode_placement,
    encode_record,
    placements_of,
)
from trimtab_server.store.counters import SavedCounters
from trimtab_server.store.errors import StoreCorruptError


def encoded_placements(record: Record) -> dict[bytes, bytes]:
    return {digest: encode_placement(p) for digest, p in placements_of(record).items()}


@given(records)
def test_a_record_comes_back_whole(record: Record) -> None:
    text = encode_record(record)
    assert text.isascii()
    assert plain(decode_record(text, encoded_placements(record))) == plain(record)


@given(placements)
def test_a_placement_comes_back_whole(placement: Placement) -> None:
    decoded = decode_placement(placement.digest, encode_placement(placement))
    np.testing.assert_array_equal(decoded.phy2log, placement.phy2log)
    assert decoded.phy2log.dtype == np.int32
    assert (decoded.num_experts, decoded.num_gpus) == (placement.num_experts, placement.num_gpus)


@given(saved_counters)
def test_counters_come_back_whole(saved: SavedCounters) -> None:
    decoded = decode_counters(encode_counters(saved))
    assert plain_counters({"": decoded}) == plain_counters({"": saved})


# All later versions must read what a version wrote, unless a migration changes it.
GOLDEN_RECORD_1 = (
    '{"epoch": {"number": 1, "group_id": "group", "members": {"worker": {"incarnation": 7, '
    '"gpus": [0, 1]}}, "generation": 2}, "in_force": [1, 3], "placement": "OLD", '
    '"last_generation": 4, "switch": '
    '{"version": [1, 4], "placement": "NEW", "stage": "offered"}, "paused": "by hand", '
    '"ended_groups": []}'
)
GOLDEN_RECORD_1 = GOLDEN_RECORD_1.replace("OLD", OLD.digest.hex()).replace("NEW", NEW.digest.hex())
GOLDEN_RECORD_2 = (
    f'{GOLDEN_RECORD_1[:-1]}, "pinned": "{PINNED.digest.hex()}", "past": '
    f'[[[1, 0], "{FIRST.digest.hex()}"], [[1, 2], "{NEW.digest.hex()}"]]}}'
)
GOLDEN_PAST = (
    f'[{{"version": [1, 0], "placement": "{FIRST.digest.hex()}", "origin": "unknown", '
    '"since": null, "until": null, "imbalance": null}, '
    f'{{"version": [1, 2], "placement": "{NEW.digest.hex()}", "origin": "triggered", '
    '"since": 1000.0, "until": 2000.5, "imbalance": 1.25}]'
)
GOLDEN_RECORD = GOLDEN_RECORD_1.replace(
    '"offered"}', '"offered", "origin": "pinned", "begins": false}'
)
GOLDEN_RECORD = (
    f'{GOLDEN_RECORD[:-1]}, "pinned": "{PINNED.digest.hex()}", "past": {GOLDEN_PAST}, '
    '"origin": "decided", "since": 2000.5, "pin_origin": "rolled_back"}'
)
GOLDEN_PLACEMENT = struct.pack("<12I", 2, 4, 3, 2, 0, 1, 2, 1, 2, 1, 0, 0)
GOLDEN_COUNTERS = (
    b'{"incarnation": 7, "seq": 5, "last_step": 50, "shape": [2, 3]}\n'
    + struct.pack("<6q", *[5] * 6)
    + b"estimate 5"
)


def test_the_format_is_that_of_existing_files() -> None:
    assert encode_record(SWITCHING) == GOLDEN_RECORD
    assert encode_placement(OLD) == GOLDEN_PLACEMENT
    assert encode_counters(counters(5)) == GOLDEN_COUNTERS


def test_every_field_of_a_record_is_stored() -> None:
    values = json.loads(GOLDEN_RECORD)
    epoch, switch = values["epoch"], values["switch"]
    member = epoch["members"]["worker"]
    for kind, stored in [(Record, values), (Epoch, epoch), (Member, member), (Switch, switch)]:
        assert set(stored) == {field.name for field in fields(kind)}
    assert all(set(each) == set(Served._fields) for each in values["past"])


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        GOLDEN_RECORD[:-1],
        GOLDEN_RECORD.replace(OLD.digest.hex(), "00" * 32),
        GOLDEN_RECORD.replace("offered", "proposed"),
        GOLDEN_RECORD.replace("[1, 3]", "[1]"),
    ],
)
def test_text_that_is_not_a_record_is_refused(text: str) -> None:
    with pytest.raises(StoreCorruptError, match="a record cannot be read"):
        decode_record(text, encoded_placements(SWITCHING))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        GOLDEN_PLACEMENT[:-1],
        GOLDEN_PLACEMENT + b"\0",
        GOLDEN_PLACEMENT[:-1] + b"\1",
        encode_placement(NEW),
    ],
)
def test_data_that_is_not_the_placement_is_refused(data: bytes) -> None:
    with pytest.raises(StoreCorruptError, match=f"placement {OLD.digest.hex()} cannot be read"):
        decode_placement(OLD.digest, data)


@pytest.mark.parametrize("data", [b"", b"{}\n", b"[]", GOLDEN_COUNTERS[:100]])
def test_data_that_is_not_counters_is_refused(data: bytes) -> None:
    with pytest.raises(StoreCorruptError, match="counters cannot be read"):
        decode_counters(data)


@pytest.mark.parametrize("counts", [np.zeros((2, 3)), np.zeros(3, np.int64)])
def test_counts_of_another_dtype_or_rank_are_refused(counts: np.ndarray) -> None:
    with pytest.raises(InvalidArgumentError, match="counts_LE"):
        replace(counters(1), counts_LE=counts)
