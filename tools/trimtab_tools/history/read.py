"""Reads a history for the checker."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from trimtab_client.exceptions import invalid_as
from trimtab_protocol.errors import MalformedError
from trimtab_protocol.history import Event
from trimtab_protocol.lines import decode_lines


def read_history(lines: Iterable[str | bytes]) -> Iterator[Event]:
    """The events of the lines of a history. Blank lines are skipped.

    Raises:
        InvalidArgumentError: a line is not a JSON object, lacks a key, or has an impossible value.
            The message names the line, the key and the value.
    """
    try:
        yield from decode_lines(lines)
    except MalformedError as error:
        raise invalid_as(error) from error
