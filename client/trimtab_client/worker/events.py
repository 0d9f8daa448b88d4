"""The events that a session passes to `on_state`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class StateEvent:
    """A change of a session's state.

    Attributes:
        kind: "connected": the server has answered. "disconnected": a stream has ended.
            "complaint": the server broke the protocol, and its message was ignored.
            "in_force" or "flipped": a line of the deployment's history (PROTOCOL.md).
        values: details by name. connected: `stream`. disconnected: `stream`, `reason` and
            `retry_in`, seconds until the next attempt. complaint: `reason`. in_force and
            flipped: the values that PROTOCOL.md describes.
    """

    kind: str
    values: Mapping[str, Any]
