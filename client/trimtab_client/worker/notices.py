"""What the server says to a worker beside its orders: how to report, and that it ends."""

from __future__ import annotations

from typing import NamedTuple

from trimtab_client.version import Version


class Directive(NamedTuple):
    """How to report.

    Attributes:
        report_interval: seconds between two reports.
        lease: seconds without a message after which the server takes the session for lost;
            0: it does not.
    """

    report_interval: float
    lease: float


class ReportAck(NamedTuple):
    """A report has been counted, and so has what all before it said."""

    seq: int


class Drain(NamedTuple):
    """The server ends in so many seconds."""

    seconds: float


class UnreadableOffer(NamedTuple):
    """An offer that can only be refused."""

    version: Version
    digest: bytes
    reason: str
