"""Describes one setting of a configuration dataclass: default, meaning, unit and rule.

A component owns its settings as fields of a frozen dataclass; `config` reads
these descriptions to make flags, environment names, file keys and help of them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

KEY = "setting"
"""Where a field's metadata holds its Setting."""


@dataclass(frozen=True)
class Setting:
    """What a user has to know about one setting.

    Attributes:
        doc: what it does, in one or two sentences.
        unit: of its value, such as "seconds"; empty where it has none.
        rule: returns what is wrong with a value, or None.
    """

    doc: str
    unit: str
    rule: Callable[[Any], str | None]


def anything(value: Any) -> str | None:
    """The rule that every value of the right type obeys."""
    return None


def at_least(least: float) -> Callable[[Any], str | None]:
    """The rule that a number is not below `least`."""
    return lambda value: None if value >= least else f"{value} is below {least}"


def setting(
    default: Any, doc: str, *, unit: str = "", rule: Callable[[Any], str | None] = anything
) -> Any:
    """A dataclass field that is a setting."""
    return field(default=default, metadata={KEY: Setting(doc, unit, rule)})
