"""Describes one setting of a configuration dataclass: its meaning, unit and rule.

A component owns its settings as fields of a frozen dataclass,

    grace_s: float = field(default=30.0, metadata=setting("Time to ...", unit="seconds"))

and `config` makes flags, environment names, file keys and help of them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

KEY = "setting"
"""Where a field's metadata holds its Setting."""

Rule = Callable[[Any], str | None]
"""Says what is wrong with a value; None: nothing."""


@dataclass(frozen=True)
class Setting:
    """What a user has to know about one setting.

    Attributes:
        doc: what it does, in one or two sentences.
        unit: of its value, such as "seconds"; empty where it has none.
        rule: beside what its type demands.
    """

    doc: str
    unit: str
    rule: Rule


def setting(doc: str, *, unit: str = "", rule: Rule = lambda value: None) -> Mapping[str, Any]:
    """Metadata that makes a dataclass field a setting."""
    return {KEY: Setting(doc, unit, rule)}


def at_least(least: float) -> Rule:
    """The rule that a number is not below `least`."""
    return lambda value: None if value >= least else f"{value} is below {least}"


def between(least: float, most: float) -> Rule:
    """The rule that a number is neither below `least` nor above `most`."""
    return lambda value: (
        at_least(least)(value) or (None if value <= most else f"{value} is above {most}")
    )


def device_spec(spec: str) -> str | None:
    """The rule that text names a device of the solver."""
    if re.fullmatch(r"auto|cpu|cuda(:\d+)?", spec):
        return None
    return f"{spec!r} is not auto, cpu, cuda or cuda:<number>"


def host_and_port(address: str) -> str | None:
    """The rule that text is an address, such as "127.0.0.1:0" or "[::1]:9464"."""
    host, _, port = address.rpartition(":")
    if host and port.isdecimal() and int(port) < 1 << 16:
        return None
    return f"{address!r} is not host:port, with a port of 0 to 65535"
