"""The exception of the fleet simulator, beside those of the client."""

from __future__ import annotations

from trimtab_client.exceptions import TrimtabError


class FleetError(TrimtabError):
    """The fleet cannot go on: a process failed, or something that it needs is missing.

    A wait that takes too long raises the client's DeadlineExceededError instead.
    """
