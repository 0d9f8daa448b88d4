"""Prints values of the client, as JSON for scripts or as text for people."""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from datetime import datetime
from enum import Enum
from typing import Any

from trimtab_client.placement import Placement
from trimtab_protocol.version import Version


def as_json(value: Any, *, indent: int | None = 2) -> str:
    """A JSON document, ended by a line feed; on one line if `indent` is None."""
    return json.dumps(as_document(value), indent=indent, allow_nan=False) + "\n"


def show(arguments: argparse.Namespace, value: Any, text: str) -> int:
    """Print a value as JSON if --json asks for it, else as this text; returns exit code 0."""
    sys.stdout.write(as_json(value) if arguments.json else text)
    return 0


def as_document(value: Any) -> Any:
    """A value and everything in it, as values that JSON has.

    A version becomes text such as "2.3", which commands accept; a digest becomes hexadecimal;
    a number that is not finite becomes null.
    """
    match value:
        case Placement():
            return {
                "phy2log": value.phy2log.tolist(),
                "num_experts": value.num_experts,
                "num_gpus": value.num_gpus,
                "digest": value.digest.hex(),
            }
        case Version():
            return str(value)
        case bytes():
            return value.hex()
        case datetime():
            return value.isoformat()
        case Enum():
            return value.value
        case Mapping():
            return {name: as_document(item) for name, item in value.items()}
        case list() | tuple():
            return [as_document(item) for item in value]
        case float() if not math.isfinite(value):
            return None
    if is_dataclass(value):
        return {field.name: as_document(getattr(value, field.name)) for field in fields(value)}
    return value
