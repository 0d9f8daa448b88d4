"""What the worker's state machine asks of whoever runs it, to be carried out in order."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from trimtab_client.worker.messages import Answer, Offer


@dataclass(frozen=True)
class Send:
    """Send an answer on the present stream; if that breaks, the next Hello says enough."""

    answer: Answer


@dataclass(frozen=True)
class Prepare:
    """Fill staging with what the offer asks for, and say when that has ended."""

    offer: Offer


@dataclass(frozen=True)
class Discard:
    """Free the staging of an offer; no transfer into it is running."""

    offer: Offer


@dataclass(frozen=True)
class Flip:
    """Serve by the offer's placement from this step boundary on, and say when that is done."""

    offer: Offer


@dataclass(frozen=True)
class Complain:
    """The server broke the protocol; what it said has had no effect."""

    reason: str


@dataclass(frozen=True)
class Note:
    """A line of the deployment's history: see PROTOCOL.md."""

    kind: str
    values: Mapping[str, Any]


Effect = Send | Prepare | Discard | Flip | Complain | Note
