"""The events of a history as JSON lines, and back. What is wrong is named by its line and key."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import fields
from typing import Any

import numpy as np

from trimtab_protocol.errors import malformed
from trimtab_protocol.history import KINDS, Again, Event, Member, Other, Process
from trimtab_protocol.placement import Placement
from trimtab_protocol.version import Version

_UINT32_MAX = 2**32 - 1
_NAMES = {kind: name for name, kind in KINDS.items()}
_OWN_FIELDS = {
    kind: tuple(each.name for each in fields(kind) if each.name not in ("line", "deployment"))
    for kind in KINDS.values()
}


def kind_of(event: Event) -> str:
    """The kind of an event, as its line names it."""
    if isinstance(event, Again):
        return kind_of(event.event)
    return event.kind if isinstance(event, Other) else _NAMES[type(event)]


def values_of(event: Event) -> dict[str, Any]:
    """What an event says beside its kind and its deployment, by the keys of its line."""
    if isinstance(event, Again):
        return {**values_of(event.event), "again": True}
    if isinstance(event, Other):
        return dict(event.values)
    values = {name: getattr(event, name) for name in _OWN_FIELDS[type(event)]}
    process = values.pop("process", None)
    return values if process is None else {**process._asdict(), **values}


def encode_line(event: Event) -> str:
    """One JSON object, without the end of the line."""
    where = {"deployment": event.deployment} if event.deployment else {}
    return json.dumps({"kind": kind_of(event), **where, **values_of(event)}, default=_plain)


def decode_lines(lines: Iterable[str | bytes]) -> Iterator[Event]:
    """The events of a history, as its lines come. Blank lines are passed over.

    Raises:
        MalformedError: a line is no JSON object, lacks a key, or has a value that cannot be; the
            message names line, key and value.
    """
    for number, text in enumerate(lines, start=1):
        if text.strip():
            where = f"line {number}"
            yield _event(number, _object(text, where), where)


def _plain(value: Any) -> Any:
    match value:
        case bytes():
            return value.hex()
        case Member():
            return vars(value)
        case Mapping():
            return dict(value)
        case Placement():
            return {
                "experts": value.num_experts,
                "gpus": value.num_gpus,
                "shape": list(value.phy2log.shape),
                "phy2log": base64.b64encode(value.phy2log.astype("<i4").tobytes()).decode(),
            }
        case _:
            raise TypeError(f"{value!r} cannot be written to a history")


def _object(text: str | bytes, where: str) -> Mapping[str, Any]:
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise malformed(where, f"is not JSON: {error}") from error
    if not isinstance(values, dict):
        raise malformed(where, f"{_shown(values)} is not a JSON object")
    return values


def _event(number: int, values: Mapping[str, Any], where: str) -> Event:
    kind = _text(_get(values, "kind", where), f"{where}: kind")
    deployment = _text(values.get("deployment", ""), f"{where}: deployment")
    origin: dict[str, Any] = {"line": number, "deployment": deployment}
    if kind not in KINDS:
        return Other(kind, **origin)
    own = (_field(values, name, where) for name in _OWN_FIELDS[KINDS[kind]])
    event = KINDS[kind](*own, **origin)
    again = values.get("again", False)
    if not isinstance(again, bool):
        raise malformed(f"{where}: again", f"{_shown(again)} is neither true nor false")
    return Again(event, **origin) if again else event


def _field(values: Mapping[str, Any], name: str, where: str) -> Any:
    """A field of an event, from the key of the same name; a process from two keys."""
    if name == "process":
        return Process(*(_field(values, part, where) for part in Process._fields))
    if name == "placement":
        value = values.get(name)
        return None if value is None else _placement(value, f"{where}: {name}")
    if name == "cause" and name not in values:
        return ""  # histories of servers that did not write it yet
    return _READERS[name](_get(values, name, where), f"{where}: {name}")


def _get(values: Mapping[str, Any], key: str, where: str) -> Any:
    if key not in values:
        raise malformed(where, f"has no {key!r}")
    return values[key]


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _text(value: Any, field: str) -> str:
    if not isinstance(value, str):
        raise malformed(field, f"{_shown(value)} is not a string")
    return value


def _integer(value: Any, field: str, low: float = -math.inf, high: float = math.inf) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise malformed(field, f"{_shown(value)} is not an integer")
    if not low <= value <= high:
        raise malformed(field, f"{value} is not in [{low}, {high}]")
    return value


def _natural(value: Any, field: str) -> int:
    return _integer(value, field, 0)


def _version(value: Any, field: str) -> Version:
    if not isinstance(value, list) or len(value) != 2:
        raise malformed(field, f"{_shown(value)} is not [epoch, generation]")
    return Version(*(_natural(part, field) for part in value))


def _digest(value: Any, field: str) -> bytes:
    text = _text(value, field)
    try:
        digest = bytes.fromhex(text)
    except ValueError:
        digest = b""
    if len(digest) != 32 or len(text) != 64:
        raise malformed(field, f"{_shown(value)} is not a SHA-256 of 64 hexadecimal digits")
    return digest


def _members(value: Any, field: str) -> Mapping[str, Member]:
    members = _mapping(value, field)
    return {name: _member(member, f"{field}[{name!r}]") for name, member in members.items()}


def _member(value: Any, field: str) -> Member:
    values = _mapping(value, field)
    incarnation = _natural(_get(values, "incarnation", field), f"{field}: incarnation")
    return Member(incarnation, _naturals(_get(values, "gpus", field), f"{field}: gpus"))


def _mapping(value: Any, field: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise malformed(field, f"{_shown(value)} is not an object")
    return value


def _naturals(value: Any, field: str) -> tuple[int, ...]:
    if not isinstance(value, list):
        raise malformed(field, f"{_shown(value)} is not a list")
    return tuple(_natural(part, field) for part in value)


def _placement(value: Any, field: str) -> Placement:
    """A placement as it was written, whether experts lack a slot or not."""
    values = _mapping(value, field)
    experts, gpus = (
        _integer(_get(values, key, field), f"{field}: {key}", 1, _UINT32_MAX)
        for key in ("experts", "gpus")
    )
    shape = _naturals(_get(values, "shape", field), f"{field}: shape")
    if len(shape) != 2 or not all(1 <= size <= _UINT32_MAX for size in shape):
        raise malformed(f"{field}: shape", f"{_shown(list(shape))} is not [L, R], both from 1")
    layers, slots = shape
    if slots % gpus:
        raise malformed(f"{field}: gpus", f"{gpus} does not divide the number of slots ({slots})")
    data = _base64(_get(values, "phy2log", field), f"{field}: phy2log")
    if len(data) != layers * slots * 4:
        raise malformed(f"{field}: phy2log", f"{len(data)} bytes are not int32 [{layers}, {slots}]")
    phy2log_LR = np.frombuffer(data, "<i4").astype(np.int32, copy=False).reshape(shape)
    # Not by `Placement.of`: what it refuses is to be found as a violation of I8.
    return Placement(phy2log_LR, experts, gpus)


def _base64(value: Any, field: str) -> bytes:
    text = _text(value, field)
    try:
        return base64.b64decode(text, validate=True)
    except ValueError as error:
        raise malformed(field, f"is not base64: {error}") from error


_READERS: Mapping[str, Callable[[Any, str], Any]] = {
    "base": _version,
    "cause": _text,
    "counts": _integer,
    "difference": _integer,
    "digest": _digest,
    "epoch": _natural,
    "gap": _integer,
    "group": _text,
    "incarnation": _natural,
    "members": _members,
    "reason": _text,
    "seq": _natural,
    "step": _integer,
    "term": _natural,
    "version": _version,
    "worker": _text,
}
