"""Reads a history for the checker."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from trimtab_client.exceptions import FieldViolation, InvalidArgumentError
from trimtab_protocol.errors import MalformedError
from trimtab_protocol.history import Event
from trimtab_protocol.lines import decode_lines


def read_history(lines: Iterable[str | bytes]) -> Iterator[Event]:
    """The events of a history, as its lines come. Blank lines are passed over.

    Raises:
        InvalidArgumentError: a line is no JSON object, lacks a key, or has a value that
            cannot be; the message names line, key and value.
    """
    try:
        yield from decode_lines(lines)
    except MalformedError as error:
        violations = [FieldViolation(v.field, v.description) for v in error.violations]
        raise InvalidArgumentError(str(error), field_violations=violations) from error
