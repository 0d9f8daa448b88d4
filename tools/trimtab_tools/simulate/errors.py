"""Why a simulation cannot go on, beside what a call to the server raises.

FleetError          a process of the fleet failed, or something that it needs is not there

What was waited for and did not come is a DeadlineExceededError.
"""

from __future__ import annotations

from trimtab_client.exceptions import TrimtabError


class FleetError(TrimtabError):
    """The fleet cannot go on. The message says which process failed, and with what."""
