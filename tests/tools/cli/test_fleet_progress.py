"""What `trimtab simulate` shows while it runs, on terminals and elsewhere."""

from __future__ import annotations

import io
import time

import pytest

from trimtab_tools.cli.fleet_progress import progress
from trimtab_tools.simulate.fleet import Fleet
from trimtab_tools.simulate.options import FleetOptions

ESCAPE = "\x1b"


class Screen(io.StringIO):
    """Standard error of a command, on a terminal or not."""

    def __init__(self, *, terminal: bool) -> None:
        super().__init__()
        self._terminal = terminal

    def isatty(self) -> bool:
        return self._terminal


def shown(monkeypatch: pytest.MonkeyPatch, *, terminal: bool, line_seconds: float = 600) -> str:
    """What a fleet shows in which one fault happens."""
    screen, fleet = Screen(terminal=terminal), Fleet(FleetOptions(ranks=2))
    monkeypatch.setattr("sys.stderr", screen)
    with progress(fleet, line_seconds=line_seconds):
        fleet.state.group_formed("g")
        fleet.state.fault_injected(time.monotonic(), "kill-rank:1@armed")
    return screen.getvalue()


@pytest.fixture(autouse=True)
def usual_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")


def test_a_terminal_has_one_line_that_changes(monkeypatch: pytest.MonkeyPatch):
    text = shown(monkeypatch, terminal=True)

    assert text.endswith("\r\x1b[K"), "nothing is left of it"
    assert "kill-rank:1@armed" in text
    assert "\n" not in text


@pytest.mark.parametrize(
    ("terminal", "name", "value"),
    [(False, "TERM", "xterm"), (True, "NO_COLOR", "1"), (True, "TERM", "dumb")],
)
def test_elsewhere_each_fault_is_a_line_at_once(monkeypatch, terminal, name, value):
    monkeypatch.setenv(name, value)
    text = shown(monkeypatch, terminal=terminal)

    (line,) = text.splitlines()
    assert line.startswith("trimtab: 0.")
    assert line.endswith(" s: fault kill-rank:1@armed")
    assert ESCAPE not in text
    assert "\r" not in text


def test_elsewhere_there_is_a_line_of_progress_now_and_then(monkeypatch):
    text = shown(monkeypatch, terminal=False, line_seconds=0)

    assert text.endswith(" s: step 0, 0 tokens, 0 wrong, 0 switches\n")
    assert ESCAPE not in text
