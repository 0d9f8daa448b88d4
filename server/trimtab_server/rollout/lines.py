"""Notes as lines of a history: see PROTOCOL.md."""

from __future__ import annotations

import base64
import json
from typing import Any

from trimtab_server.domain.placement import Placement
from trimtab_server.rollout.effects import Note


def line_of(note: Note, deployment: str | None = None) -> str:
    """One JSON object, without the line's end."""
    whose = {} if deployment is None else {"deployment": deployment}
    return json.dumps({"kind": note.kind, **whose, **note.values}, default=_plain)


def _plain(value: Any) -> Any:
    match value:
        case bytes():
            return value.hex()
        case Placement():
            return {
                "experts": value.num_experts,
                "gpus": value.num_gpus,
                "shape": list(value.phy2log.shape),
                "phy2log": base64.b64encode(value.phy2log.astype("<i4").tobytes()).decode(),
            }
        case _:
            raise TypeError(f"{value!r} has no place in a history")
