"""What operators do to deployments."""

from __future__ import annotations

from enum import Enum

MAX_WAIT_S = 7 * 86400.0
"""The longest that an operator may have a switch wait: gRPC cannot count in a much longer
deadline."""


class OperationKind(Enum):
    """What was done. UNKNOWN: a newer server has a kind that this version does not know."""

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
