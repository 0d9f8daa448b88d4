"""The events of a history as JSON lines, and back. What is wrong is named by its line and key."""

from __future__ import annotations

import base64
import json
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import fields
from functools import partial
from typing import Any, TypeVar

import numpy as np

from trimtab_protocol.errors import malformed
from trimtab_protocol.history import KINDS, Again, Event, Member, Other, Process
from trimtab_protocol.placement import Placement
from trimtab_protocol.version import Version

T = TypeVar("T")

_UINT32_MAX = 2**32 - 1
_NAMES = {kind: name for name, kind in KINDS.items()}
_OWN_FIELDS = {
    kind: tuple(each.name for each in fields(kind) if each.name not in ("line", "deployment"))
    for kind in KINDS.values()
}

_LATER_KEYS = {"aborting": "cause", "deleted": "reason"}
"""The key of a kind that older servers did not write: without it, the text is empty."""


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
    return _of_type(values, where, dict, "is not a JSON object")


def _event(number: int, values: Mapping[str, Any], where: str) -> Event:
    kind = _read(values, "kind", where, _text)
    deployment = _text(values.get("deployment", ""), f"{where}: deployment")
    origin: dict[str, Any] = {"line": number, "deployment": deployment}
    if kind not in KINDS:
        return Other(kind, **origin)
    if kind in _LATER_KEYS:
        values = {_LATER_KEYS[kind]: "", **values}
    own = (_field(values, name, where) for name in _OWN_FIELDS[KINDS[kind]])
    event = KINDS[kind](*own, **origin)
    again = values.get("again", False)
    if _of_type(again, f"{where}: again", bool, "is neither true nor false"):
        return Again(event, **origin)
    return event


def _field(values: Mapping[str, Any], name: str, where: str) -> Any:
    """A field of an event, from the key of the same name; a process from two keys."""
    if name == "process":
        return Process(*(_field(values, part, where) for part in Process._fields))
    if name == "placement" and values.get(name) is None:
        return None
    return _read(values, name, where, _READERS[name])


def _read(values: Mapping[str, Any], key: str, where: str, read: Callable[[Any, str], T]) -> T:
    if key not in values:
        raise malformed(where, f"has no {key!r}")
    return read(values[key], f"{where}: {key}")


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _of_type(value: Any, field: str, kind: type[T], complaint: str) -> T:
    if not isinstance(value, kind):
        raise malformed(field, f"{_shown(value)} {complaint}")
    return value


def _text(value: Any, field: str) -> str:
    return _of_type(value, field, str, "is not a string")


def _mapping(value: Any, field: str) -> Mapping[str, Any]:
    return _of_type(value, field, dict, "is not an object")


def _integer(value: Any, field: str, low: float = -math.inf, high: float = math.inf) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise malformed(field, f"{_shown(value)} is not an integer")
    if not low <= value <= high:
        raise malformed(field, f"{value} is not in [{low}, {high}]")
    return value


_natural = partial(_integer, low=0)
_size = partial(_integer, low=1, high=_UINT32_MAX)


def _naturals(value: Any, field: str) -> tuple[int, ...]:
    return tuple(_natural(part, field) for part in _of_type(value, field, list, "is not a list"))


def _version(value: Any, field: str) -> Version:
    if not isinstance(value, list) or len(value) != 2:
        raise malformed(field, f"{_shown(value)} is not [epoch, generation]")
    return Version(*(_natural(part, field) for part in value))


def _digest(value: Any, field: str) -> bytes:
    text = _text(value, field)
    if not re.fullmatch("[0-9A-Fa-f]{64}", text):
        raise malformed(field, f"{_shown(value)} is not a SHA-256 of 64 hexadecimal digits")
    return bytes.fromhex(text)


def _members(value: Any, field: str) -> Mapping[str, Member]:
    members = _mapping(value, field)
    return {name: _member(member, f"{field}[{name!r}]") for name, member in members.items()}


def _member(value: Any, field: str) -> Member:
    values = _mapping(value, field)
    incarnation = _read(values, "incarnation", field, _natural)
    return Member(incarnation, _read(values, "gpus", field, _naturals))


def read_placement(value: Any, field: str) -> Placement:
    """A placement as it was written, whether experts lack a slot or not.

    Raises:
        MalformedError: it is none; the message names the field and the value.
    """
    values = _mapping(value, field)
    experts, gpus = (_read(values, key, field, _size) for key in ("experts", "gpus"))
    shape = _read(values, "shape", field, _naturals)
    if len(shape) != 2 or not all(1 <= size <= _UINT32_MAX for size in shape):
        raise malformed(f"{field}: shape", f"{_shown(list(shape))} is not [L, R], both from 1")
    layers, slots = shape
    if slots % gpus:
        raise malformed(f"{field}: gpus", f"{gpus} does not divide the number of slots ({slots})")
    data = _read(values, "phy2log", field, _base64)
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
    **dict.fromkeys(("base", "version"), _version),
    **dict.fromkeys(("cause", "group", "reason", "worker"), _text),
    **dict.fromkeys(("counts", "difference", "gap", "step"), _integer),
    **dict.fromkeys(("epoch", "incarnation", "seq", "term"), _natural),
    "digest": _digest,
    "members": _members,
    "placement": read_placement,
}
