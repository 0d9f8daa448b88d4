"""The exceptions of the fleet simulator, beside those of the client.

FleetError          a process of the fleet failed, or something that the fleet needs is missing

A wait that takes too long raises the client's DeadlineExceededError.
"""

from __future__ import annotations

from trimtab_client.exceptions import TrimtabError


class FleetError(TrimtabError):
    """The fleet cannot go on. The message says which process failed, and how."""
