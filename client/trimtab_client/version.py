"""Versions as operators name them."""

from __future__ import annotations

import re
from typing import SupportsIndex

from trimtab_client.checks import integer
from trimtab_client.exceptions import invalid
from trimtab_protocol.version import Version

_UINT64_MAX = 2**64 - 1


def as_version(value: Version | SupportsIndex | str, field: str) -> Version:
    """A version as operators name it, such as Version(2, 3), 3, "2.3" or "3".

    Where the generation is named alone, the epoch is 0.

    Raises:
        InvalidArgumentError: it is none of these; the error names `field`.
    """
    epoch: SupportsIndex = 0
    generation: SupportsIndex
    if isinstance(value, Version):
        epoch, generation = value
    elif isinstance(value, str):
        if not re.fullmatch(r"([0-9]{1,20}\.)?[0-9]{1,20}", value):
            raise invalid(field, f"{value!r} is not a version such as '2.3', or a generation")
        head, _, tail = value.rpartition(".")
        epoch, generation = int(head or 0), int(tail)
    else:
        generation = value
    return Version(
        integer(epoch, field, 0, _UINT64_MAX), integer(generation, field, 0, _UINT64_MAX)
    )
