"""The server's history of switches, where it cannot be written."""

from __future__ import annotations

import json
import resource

from structlog.testing import capture_logs

from trimtab_server.history import History
from trimtab_server.rollout.effects import Note


def test_a_disk_that_is_full_costs_the_line_and_nothing_else():
    """What follows from a switch must not fail half-way because a note of it cannot be kept."""
    history = History("/dev/full")
    with capture_logs() as logs:
        history.history_note("d", Note("aborted", {"version": (1, 2)}))
    history.close()
    lost = next(each for each in logs if each["event"] == "history_lost")
    assert (lost["kind"], lost["deployment"]) == ("aborted", "d")
    assert "No space left on device" in lost["reason"]


def test_what_follows_half_a_line_begins_on_a_line_of_its_own(tmp_path):
    """A disk that fills up in the middle of a line costs that line, and not the next as well."""
    path = tmp_path / "history.jsonl"
    history = History(str(path))
    history.term_started(1)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    # What is logged would go into a file that may not grow either.
    with capture_logs():
        resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 5, hard))
        try:
            history.term_started(2)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    history.term_started(3)
    history.close()
    first, half, last = path.read_text().splitlines()
    assert (json.loads(first)["term"], json.loads(last)["term"]) == (1, 3)
    assert half == '{"kin'
