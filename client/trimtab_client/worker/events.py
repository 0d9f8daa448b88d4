"""What a session tells whoever watches it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class StateEvent:
    """Something has changed.

    `kind` says what, and `values` has what belongs to it:

    connected: `stream`; the server has answered. disconnected: `stream`, `reason`, `retry_in`
    in seconds. complaint: `reason`; the server broke the protocol, without effect.
    in_force, flipped: the line of the deployment's history, as PROTOCOL.md describes it.

    Attributes:
        kind: what has changed.
        values: what belongs to it.
    """

    kind: str
    values: Mapping[str, Any]
