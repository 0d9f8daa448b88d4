"""Describes one setting of a configuration dataclass: its meaning, unit and rule.

A component owns its settings as fields of a frozen dataclass,

    grace_s: float = setting(30.0, "Time to ...", unit="seconds")

and `config` makes flags, environment names, file keys and help of them.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

_T = TypeVar("_T")

KEY = "setting"
"""Where a field's metadata holds its Setting."""

Rule = Callable[[Any], str | None]
"""Returns what is wrong with a value; None if it is valid."""


@dataclass(frozen=True)
class Setting:
    """The description of one setting, for users.

    Attributes:
        doc: what it does, in one or two sentences.
        unit: of its value, such as "seconds"; empty without a unit.
        rule: for its value, in addition to its type.
    """

    doc: str
    unit: str
    rule: Rule


def setting(default: _T, doc: str, *, unit: str = "", rule: Rule = lambda value: None) -> _T:
    """A dataclass field that is a setting."""
    return field(default=default, metadata={KEY: Setting(doc, unit, rule)})


def at_least(minimum: float) -> Rule:
    """The rule that a number is not below `minimum`."""
    return lambda value: None if value >= minimum else f"{value} is below {minimum}"


def between(minimum: float, maximum: float) -> Rule:
    """The rule that a number is neither below `minimum` nor above `maximum`."""
    return lambda value: (
        at_least(minimum)(value) or (None if value <= maximum else f"{value} is above {maximum}")
    )


def device_spec(spec: str) -> str | None:
    """The rule that a text names a device of the solver."""
    if re.fullmatch(r"auto|cpu|cuda(:\d+)?", spec):
        return None
    return f"{spec!r} is not auto, cpu, cuda or cuda:<number>"


def host_and_port(address: str) -> str | None:
    """The rule that a text is an address, such as "127.0.0.1:0" or "[::1]:9464"."""
    host, _, port = address.rpartition(":")
    if host and port.isdecimal() and int(port) < 1 << 16:
        return None
    return f"{address!r} is not host:port, with a port of 0 to 65535"
