"""What operators did to a deployment, as the server remembers it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import Enum


class OperationKind(Enum):
    """What was done. UNKNOWN: a newer server has a kind that this client does not know."""

    CREATE = "create"
    UPDATE_POLICY = "update_policy"
    DELETE = "delete"
    TRIGGER = "trigger"
    PAUSE = "pause"
    RESUME = "resume"
    FORGET_LOAD = "forget_load"
    PIN = "pin"
    UNPIN = "unpin"
    ROLL_BACK = "roll_back"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class Operation:
    """A call of an operator that changed a deployment.

    Attributes:
        time: when it was done.
        kind: what was done.
        peer: who did it: an address, and the name in the certificate if one was presented.
        before: what it changed, as it was before, for people; empty if nothing was there.
        after: the same afterwards.
    """

    time: datetime
    kind: OperationKind
    peer: str
    before: str
    after: str
