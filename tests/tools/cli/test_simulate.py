"""`trimtab simulate`: its output, its exit code, and that it leaves nothing behind."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from trimtab_tools.cli import main

Capture = pytest.CaptureFixture[str]

SIZES = ("--ranks", "3", "--layers", "2", "--experts", "6", "--hidden", "8", "--tokens", "4")
SMALL = (*SIZES, "--step-seconds", "0.03")
WAIT = 600


def simulated(*arguments: str) -> tuple[int, str, str]:
    """The exit code, output and errors of the command, with a small fleet."""
    return run(*SMALL, *arguments)


def run(*arguments: str) -> tuple[int, str, str]:
    """The exit code, output and errors of the command."""
    command = [Path(sys.executable).with_name("trimtab"), "simulate", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    return done.returncode, done.stdout, done.stderr


@pytest.mark.concurrent
def test_a_run_with_faults_prints_a_report_and_keeps_the_rules(tmp_path: Path) -> None:
    history = tmp_path / "run.jsonl"
    faults = ("kill-rank:2@armed", "slow:0@0.1s+0.3", "refuse:1@0.2s", "stop-rank:0@0.5s+0.3")
    flags = [word for fault in faults for word in ("--fault", fault)]

    code, out, err = simulated("--switches", "2", *flags, "--history", str(history))

    assert code == 0, err
    # No terminal: a line for each fault, and one now and then.
    said = err.splitlines()
    assert all(re.fullmatch(r"trimtab: [\d.]+ s: [ -~]+", line) for line in said), err
    happened = [line.split(": fault ")[1] for line in said if ": fault " in line]
    assert sorted(happened) == [
        *("kill-rank:2@armed", "refuse:1@prepared", "slow:0@prepared", "stop-rank:0")
    ]
    assert re.match(r"[\d.]+ s, \d+ steps, \d+ tokens, none wrong\n", out)
    assert "given up: " in out
    assert "groups: 2" in out
    assert "no violations\nat rest\n" in out
    faults = [line.split()[0] for line in out.split("\n\n")[1].splitlines()[1:]]
    assert sorted(faults) == [
        *("kill-rank:2@armed", "refuse:1@prepared", "slow:0@prepared", "stop-rank:0")
    ]
    assert main(["check-history", str(history), "--complete"]) == 0


@pytest.mark.concurrent
def test_counts_of_a_trace_that_are_too_many_are_scaled_down_and_that_is_said(
    tmp_path: Path,
) -> None:
    trace = tmp_path / "trace.csv"
    trace.write_text("layer,expert,load\n3,0,10000000000\n3,1,20000000000\n4,0,0\n4,1,7\n")
    sizes = ("--ranks", "2", "--hidden", "8", "--steps-per-window", "64")

    code, out, err = run(*sizes, "--trace", str(trace))

    assert code == 0, err
    assert f"the counts of {trace} are divided by 28611, and rounded" in err
    assert "none wrong" in out


@pytest.mark.concurrent
def test_json_has_the_whole_report_and_a_killed_server_is_started_again() -> None:
    fault = ("--fault", "kill-server@committed")

    code, out, _ = simulated("--switches", "1", "--plan", "server", *fault, "--json")
    report = json.loads(out)

    assert code == 0
    assert report["ok"] is True
    assert report["wrong"] == 0
    assert report["trouble"] == ""
    assert report["groups"] == 1
    assert report["verdict"]["violations"] == []
    assert [fault["fault"] for fault in report["faults"]] == ["kill-server"]
    assert len(report["target_seconds"]) >= 1
    assert report["faults"][0]["flipped_after"] > 0


@pytest.mark.concurrent
def test_a_history_that_cannot_be_read_is_complained_about_in_a_report_that_comes(
    tmp_path: Path,
) -> None:
    history = tmp_path / "run.jsonl"
    command = [Path(sys.executable).with_name("trimtab"), "simulate", *SMALL]
    fault = ("--fault", "stop-rank:1@0s+0.1", "--switches", "1", "--history", str(history))
    running = subprocess.Popen(
        [*command, *fault, "--seconds", "1"], stdout=subprocess.PIPE, text=True
    )
    end = time.monotonic() + WAIT
    while not history.exists() or "\n" not in history.read_text():
        assert time.monotonic() < end
        time.sleep(0.02)
    with history.open("a") as file:
        file.write('{"kind": "offe\n[1]\n{"kind": "offered", "version": 7}\n')
    out, _ = running.communicate(timeout=WAIT)

    assert running.returncode == 1
    assert "none wrong" in out
    number = 1 + history.read_text().split("\n").index('{"kind": "offe')
    assert f"cannot be read: history: {history}: line {number}: is not JSON" in out
    assert "history: not checked\nat rest\n" in out
    assert "stop-rank:1" in out


def processes_with(folder: Path) -> list[int]:
    """The processes with a folder in their environment, which their children inherit."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            environment = (entry / "environ").read_bytes() if entry.name.isdigit() else b""
        except OSError:
            continue
        if str(folder).encode() in environment:
            found.append(int(entry.name))
    return found


def wait_until_nothing_is_left(folder: Path) -> None:
    end = time.monotonic() + WAIT
    while processes_with(folder) or list(folder.iterdir()):
        assert time.monotonic() < end, (processes_with(folder), list(folder.iterdir()))
        time.sleep(0.02)


# As in a terminal, since SIGINT may be ignored if the tests run in the background. SIGALRM causes a
# Ctrl-C while an object is deleted, where Python drops the exception.
LISTENING = """
import os, signal
class Last:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGINT)
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGALRM, lambda *_: Last() and None)
"""


@contextmanager
def simulation(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """A simulation that would go on for ten minutes. All ranks serve, and one hangs."""
    program = f"{LISTENING}\nimport sys; from trimtab_tools.cli import main; sys.exit(main())"
    history = folder.parent / "history.jsonl"
    flags = ("--seconds", "600", "--fault", "stop-rank:1@0s+600", "--history", str(history))
    running = subprocess.Popen(
        [sys.executable, "-c", program, "simulate", *SMALL, *flags],
        env={**os.environ, "TMPDIR": str(folder)},
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        end = time.monotonic() + WAIT
        while not history.exists() or history.read_text().count('"in_force"') < 3:
            assert time.monotonic() < end
            time.sleep(0.02)
        # Ranks, the server, the reaper, and the command itself.
        while len(processes_with(folder)) != 3 + 3:
            assert time.monotonic() < end, processes_with(folder)
            time.sleep(0.02)
        yield running
    finally:
        running.kill()
        running.communicate()


linux_only = pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="needs /proc")


@linux_only
@pytest.mark.concurrent
@pytest.mark.parametrize(
    ("number", "code", "says"),
    [
        (signal.SIGINT, 130, "trimtab: interrupted\n"),
        (signal.SIGALRM, 130, "trimtab: interrupted\n"),
        (signal.SIGKILL, -9, ""),
    ],
)
def test_nothing_is_left_behind_however_it_ends(
    tmp_path: Path, number: signal.Signals, code: int, says: str
) -> None:
    """No process that hangs either, and also if the command has no time to clean up."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    with simulation(folder) as running:
        running.send_signal(number)
        _, said = running.communicate(timeout=WAIT)
        wait_until_nothing_is_left(folder)

    assert running.returncode == code
    assert number != signal.SIGALRM or "KeyboardInterrupt" in said  # Python reports what it drops.
    progress = r"(trimtab: [\d.]+ s: .*\n)*"
    assert said.endswith(says) if says else re.fullmatch(progress, said)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--fault", "kill-rank:9@2s"], "fault: 'kill-rank:9@2s' does not name a rank in [0, 2]"),
        (["--slots", "10"], "slots: 10 is not a multiple of ranks (3)"),
        (["--switches", "-1"], "switches: -1"),
        (
            ["--server", "x:1", "--fault", "kill-server@2s"],
            "does not kill or stop the server of --server",
        ),
        (
            ["--server", "x:1", "--balance", "shadow"],
            "--balance: the server of --server does as its own policy says",
        ),
    ],
)
def test_a_wrong_command_line_is_refused_before_anything_starts(
    capsys: Capture, arguments: list[str], complaint: str
):
    with pytest.raises(SystemExit) as exited:
        main(["simulate", *SMALL, *arguments])

    assert exited.value.code == 2
    assert complaint in capsys.readouterr().err


def test_without_the_servers_packages_it_says_what_to_install(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(sys.modules, "trimtab_server", None)

    assert main(["simulate", *SMALL]) == 1
    assert "pip install 'trimtab-tools[server]'" in capsys.readouterr().err


def test_a_run_without_a_server_says_why_it_fails(capsys: Capture):
    nobody = ("--server", "127.0.0.1:1", "--patience", "0.5")

    assert main(["simulate", *SMALL, *nobody]) == 1
    out = capsys.readouterr().out
    assert "history: none\n" in out
    assert "trouble: waited 0.5 s for all ranks to be in one epoch: rank 0 " in out
