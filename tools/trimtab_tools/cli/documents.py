"""What the client answers, as JSON for scripts."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from datetime import datetime
from enum import Enum
from typing import Any

from trimtab_client.placement import Placement
from trimtab_protocol.version import Version


def as_json(value: Any, *, indent: int | None = 2) -> str:
    """One JSON document, ended by a line feed; without `indent`, on one line."""
    return json.dumps(as_document(value), indent=indent, allow_nan=False) + "\n"


def as_document(value: Any) -> Any:
    """`value` in what JSON knows, all the way down.

    A version is text that commands take, such as "2.3"; a digest is hexadecimal; a number that
    is not finite is null.
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
