"""Encodes records, placements and counters for storage, and decodes them; the same for all stores.

Later versions read what these functions write. Change the formats only together with a migration of
the stores that contain them.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType
from typing import Any

import numpy as np

from trimtab_protocol.history import Member
from trimtab_protocol.placement import Placement
from trimtab_protocol.version import Version
from trimtab_server.rollout.record import Epoch, Origin, Record, Served, Stage, Switch
from trimtab_server.store.counters import SavedCounters
from trimtab_server.store.errors import StoreCorruptError


def placements_of(record: Record) -> dict[bytes, Placement]:
    """The placements that a record refers to, by digest."""
    switch = record.switch
    placements = (
        record.placement,
        None if switch is None else switch.placement,
        record.pinned,
        *(served.placement for served in record.past),
    )
    return {placement.digest: placement for placement in placements if placement is not None}


def encode_record(record: Record) -> str:
    """A record as ASCII JSON, with digests in place of placements."""
    return json.dumps(
        {
            "epoch": record.epoch and _epoch_to_json(record.epoch),
            "in_force": record.in_force,
            "placement": record.placement and record.placement.digest.hex(),
            "last_generation": record.last_generation,
            "switch": record.switch and _switch_to_json(record.switch),
            "paused": record.paused,
            "ended_groups": record.ended_groups,
            "pinned": record.pinned and record.pinned.digest.hex(),
            "past": [_served_to_json(served) for served in record.past],
            "origin": record.origin.value,
            "since": record.since,
            "pin_origin": record.pin_origin.value,
        }
    )


def decode_record(text: str, placements: Mapping[bytes, bytes]) -> Record:
    """The record that was encoded as `text`; `placements` has the encoded placements it refers to.

    Raises:
        StoreCorruptError: `text` is not a record, or a placement is missing or has another digest.
    """
    with _reading("a record"):
        found = {digest: decode_placement(digest, data) for digest, data in placements.items()}
        values = json.loads(text)
        in_force, placement, pinned = values["in_force"], values["placement"], values["pinned"]
        return Record(
            epoch=values["epoch"] and _epoch_of(values["epoch"]),
            in_force=in_force and Version(*in_force),
            placement=placement and found[bytes.fromhex(placement)],
            last_generation=values["last_generation"],
            switch=values["switch"] and _switch_of(values["switch"], found),
            paused=values["paused"],
            ended_groups=tuple(values["ended_groups"]),
            pinned=pinned and found[bytes.fromhex(pinned)],
            past=tuple(_served_of(served, found) for served in values["past"]),
            origin=Origin(values["origin"]),
            since=values["since"],
            pin_origin=Origin(values["pin_origin"]),
        )


def encode_placement(placement: Placement) -> bytes:
    """The bytes that the digest is taken of, after its prefix."""
    return placement.to_bytes()


def decode_placement(digest: bytes, data: bytes) -> Placement:
    """The placement that was encoded as `data` and has this digest.

    Raises:
        StoreCorruptError: `data` is not a placement, or it has another digest.
    """
    with _reading(f"placement {digest.hex()}"):
        placement = Placement.from_bytes(data)
        if placement.digest != digest:
            raise ValueError(f"its digest is {placement.digest.hex()}")
        return placement


def encode_counters(counters: SavedCounters) -> bytes:
    """Counters as one line of JSON, then the counts as little-endian int64, then the estimate."""
    counts_LE = counters.counts_LE
    head = {
        "incarnation": counters.incarnation,
        "seq": counters.seq,
        "last_step": counters.last_step,
        "shape": counts_LE.shape,
    }
    counts = counts_LE.astype("<i8", copy=False).tobytes()
    return json.dumps(head).encode() + b"\n" + counts + counters.estimate


def decode_counters(data: bytes) -> SavedCounters:
    """The counters that were encoded as `data`; their counts are read-only.

    Raises:
        StoreCorruptError: `data` does not encode counters.
    """
    with _reading("counters"):
        line, _, rest = data.partition(b"\n")
        head = json.loads(line)
        layers, experts = head["shape"]
        counts = np.frombuffer(rest, "<i8", layers * experts).astype(np.int64)
        counts_LE = counts.reshape(layers, experts)
        counts_LE.setflags(write=False)
        return SavedCounters(
            incarnation=head["incarnation"],
            seq=head["seq"],
            last_step=head["last_step"],
            counts_LE=counts_LE,
            estimate=rest[counts.nbytes :],
        )


def _epoch_to_json(epoch: Epoch) -> dict[str, Any]:
    return vars(epoch) | {"members": {name: vars(member) for name, member in epoch.members.items()}}


def _epoch_of(values: dict[str, Any]) -> Epoch:
    members = {
        worker: Member(member["incarnation"], tuple(member["gpus"]))
        for worker, member in values["members"].items()
    }
    number, group_id, generation = values["number"], values["group_id"], values["generation"]
    return Epoch(number, group_id, MappingProxyType(members), generation)


def _switch_to_json(switch: Switch) -> dict[str, Any]:
    return {
        "version": switch.version,
        "placement": switch.placement.digest.hex(),
        "stage": switch.stage.value,
        "origin": switch.origin.value,
        "begins": switch.begins,
    }


def _switch_of(values: dict[str, Any], placements: Mapping[bytes, Placement]) -> Switch:
    placement = placements[bytes.fromhex(values["placement"])]
    stage, origin = Stage(values["stage"]), Origin(values["origin"])
    return Switch(Version(*values["version"]), placement, stage, origin, values["begins"])


def _served_to_json(served: Served) -> dict[str, Any]:
    return served._asdict() | {
        "placement": served.placement.digest.hex(),
        "origin": served.origin.value,
    }


def _served_of(values: dict[str, Any], placements: Mapping[bytes, Placement]) -> Served:
    return Served(
        Version(*values["version"]),
        placements[bytes.fromhex(values["placement"])],
        Origin(values["origin"]),
        values["since"],
        values["until"],
        values["imbalance"],
    )


@contextmanager
def _reading(what: str) -> Iterator[None]:
    """Raise every error of decoding as a StoreCorruptError."""
    try:
        yield
    except (AttributeError, KeyError, TypeError, ValueError, struct.error) as error:
        raise StoreCorruptError(f"{what} cannot be read: {error!r}") from error
