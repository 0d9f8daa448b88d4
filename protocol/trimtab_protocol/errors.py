"""What is wrong with a value that came from elsewhere. Each side makes its own error of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Self


class Violation(NamedTuple):
    """A field that breaks a rule.

    Attributes:
        field: its path, such as "topology.num_gpus".
        description: the value seen, and the rule that it breaks.
    """

    field: str
    description: str


class MalformedError(ValueError):
    """A message, placement or line of a history that cannot be read. Names every field at fault."""

    def __init__(self, *violations: Violation) -> None:
        self.violations = violations
        super().__init__("; ".join(f"{v.field}: {v.description}" for v in violations))

    @classmethod
    def of(cls, field: str, description: str) -> Self:
        """The error for one field."""
        return cls(Violation(field, description))

    @classmethod
    def require(cls, condition: bool, field: str, description: str) -> None:
        """Raise this error for `field` unless `condition` is true."""
        if not condition:
            raise cls.of(field, description)

    @classmethod
    def require_all(cls, *rules: tuple[bool, str, str]) -> None:
        """`require` for several (condition, field, description): one error names all that fail."""
        broken = [Violation(field, description) for holds, field, description in rules if not holds]
        if broken:
            raise cls(*broken)


malformed = MalformedError.of
require = MalformedError.require
require_all = MalformedError.require_all


def gather(*parts: Callable[[], Any]) -> list[Any]:
    """The results of all parts, or one error with the violations of all parts that failed."""
    results: list[Any] = []
    found: list[Violation] = []
    for part in parts:
        try:
            results.append(part())
        except MalformedError as error:
            found.extend(error.violations)
    if found:
        raise MalformedError(*found)
    return results
