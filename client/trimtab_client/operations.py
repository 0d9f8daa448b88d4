"""What operators did to a deployment, as the server remembers it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from trimtab_protocol.operations import OperationKind


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
