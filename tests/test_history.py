"""The server's history of switches, where it cannot be written."""

from __future__ import annotations

from structlog.testing import capture_logs

from trimtab_server.history import History
from trimtab_server.rollout.effects import Note


def test_a_disk_that_is_full_costs_the_line_and_nothing_else():
    """What follows from a switch must not fail half-way because a note of it cannot be kept."""
    history = History("/dev/full")
    with capture_logs() as logs:
        history.noted("d", Note("aborted", {"version": (1, 2)}))
    history.close()
    lost = next(each for each in logs if each["event"] == "history_lost")
    assert (lost["kind"], lost["deployment"]) == ("aborted", "d")
    assert "No space left on device" in lost["reason"]
