from __future__ import annotations

import json
import logging
import sys

import pytest
import structlog

from trimtab_server.logs import LogConfig, configure_logs


def test_json_logs_are_one_object_a_line_from_both_kinds_of_logger(
    capsys: pytest.CaptureFixture[str],
) -> None:
    configure_logs(LogConfig(log_format="json"), {})
    structlog.get_logger("trimtab").info("ready", address="a:1")
    logging.getLogger("grpc").warning("odd %s", "thing")
    ours, theirs = map(json.loads, capsys.readouterr().err.splitlines())
    assert (ours["event"], ours["address"], ours["level"]) == ("ready", "a:1", "info")
    assert (theirs["event"], theirs["logger"], theirs["level"]) == ("odd thing", "grpc", "warning")
    assert ours["timestamp"].endswith("Z")


def test_json_logs_hold_tracebacks_as_data(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs(LogConfig(log_format="json"), {})
    try:
        _ = 1 / 0
    except ZeroDivisionError:
        structlog.get_logger("trimtab").exception("unexpected error")
    event = json.loads(capsys.readouterr().err)
    assert event["exception"][0]["exc_type"] == "ZeroDivisionError"


def test_console_logs_are_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs(LogConfig(log_format="console"), {})
    structlog.get_logger("trimtab").info("ready", address="a:1")
    shown = capsys.readouterr().err
    assert "ready" in shown
    assert "address=a:1" in shown


@pytest.mark.parametrize(
    ("environment", "coloured"), [({}, True), ({"NO_COLOR": ""}, True), ({"NO_COLOR": "1"}, False)]
)
def test_a_terminal_gets_colours_unless_no_color_is_set(
    environment: dict[str, str],
    coloured: bool,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    configure_logs(LogConfig(log_format="console"), environment)
    try:
        _ = 1 / 0
    except ZeroDivisionError:
        structlog.get_logger("trimtab").exception("unexpected error", address="a:1")
    assert ("\x1b" in capsys.readouterr().err) == coloured


def test_events_below_the_level_are_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs(LogConfig(log_level="warning"), {})
    structlog.get_logger("trimtab").info("quiet")
    structlog.get_logger("trimtab").warning("loud")
    shown = capsys.readouterr().err
    assert "quiet" not in shown
    assert "loud" in shown
