from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.servers import ServerProcess
from trimtab_server import __version__
from trimtab_server.cli import main
from trimtab_server.config import sections
from trimtab_server.solver.backends.cpu import compiled


def exit_code(*arguments: str) -> object:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    return ended.value.code


def test_help_shows_the_commands_and_examples(capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code("--help") == 0
    shown = capsys.readouterr().out
    for part in ("serve", "--version", "examples:", "--print-config"):
        assert part in shown


def test_help_of_serve_shows_every_setting_with_default_and_variable(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert exit_code("serve", "--help") == 0
    shown = " ".join(capsys.readouterr().out.split())
    # They let the process die: only this project's own tests are to know of them.
    assert "failpoint" not in shown
    for section in sections():
        assert f"{section.title}:" in shown
        for option in section.options:
            assert f"{option.flag}" in shown
            assert f"; {option.env}]" in shown
            assert option.about.doc in shown


def test_version_prints_the_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code("--version") == 0
    assert capsys.readouterr().out == f"trimtab-server {__version__}\n"


def test_print_config_prints_what_is_in_effect(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRIMTAB_QUEUE_SIZE", "9")
    assert main(["serve", "--print-config", "--effort", "balanced", "--no-reflection"]) == 0
    printed = tomllib.loads(capsys.readouterr().out)
    assert printed["queue_size"] == 9
    assert printed["effort"] == "balanced"
    assert printed["reflection"] is False


def test_a_wrong_configuration_exits_2_with_one_line_for_each_fault(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["serve", "--queue-size", "0", "--device", "tpu"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert sorted(line.split(": ")[1] for line in lines) == ["device", "queue_size"]
    assert "0 is below 1 (on the command line)" in "\n".join(lines)


@pytest.mark.parametrize("arguments", [[], ["dance"], ["serve", "--dance"]], ids=" ".join)
def test_an_unknown_command_or_flag_exits_2(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert exit_code(*arguments) == 2
    assert "usage:" in capsys.readouterr().err


def test_healthcheck_exits_0_where_the_server_serves(
    server: ServerProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRIMTAB_LISTEN", server.address)
    assert main(["healthcheck"]) == 0


def test_healthcheck_exits_1_and_says_why_where_no_server_serves(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["healthcheck", "--listen", "unix:/none"]) == 1
    assert "not serving: unix:/none" in capsys.readouterr().err
    assert main(["healthcheck", "--listen", "nowhere"]) == 1
    assert "listen" in capsys.readouterr().err


@pytest.mark.process
def test_no_command_but_serve_loads_torch() -> None:
    code = "import sys, trimtab_server.cli; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.slow
@pytest.mark.usefixtures("server")
def test_warm_keeps_the_kernels_for_the_next_process(tmp_path: Path) -> None:
    # The server has compiled all kernels, which takes a minute. Two of them are missing here.
    assert compiled._CACHE is not None
    kept, missing = tmp_path / "trimtab" / compiled._CACHE.name, ("rows.group_loads", "rows.places")
    without = shutil.ignore_patterns(*(f"{name}-*" for name in missing))
    shutil.copytree(compiled._CACHE, kept, ignore=without)

    def warm() -> dict[str, int]:
        subprocess.run(
            [sys.executable, "-m", "trimtab_server", "warm", "--device", "cpu"],
            env={**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)},
            check=True,
            timeout=300,
        )
        return written()

    def written() -> dict[str, int]:
        return {file.name: file.stat().st_mtime_ns for file in kept.iterdir()}

    before, after = written(), warm()
    assert before.items() <= after.items(), "what is there is not compiled again"
    assert {name.split("-")[0] for name in after.keys() - before.keys()} == set(missing)
    assert warm() == after, "the second one compiles nothing"


def test_warm_plans_for_the_shapes_given(capfd: pytest.CaptureFixture[str]) -> None:
    shapes = ["--shape", "2x8:12/4", "--shape", "1x8:12/4:2/4"]
    assert main(["warm", "--device", "cpu", "--log-format", "json", *shapes]) == 0
    lines = [json.loads(line) for line in capfd.readouterr().err.splitlines()]
    assert [line["shape"] for line in lines if line["event"] == "warm"] == shapes[1::2]


@pytest.mark.parametrize(
    ("shape", "complaint"),
    [
        ("58x256", "shape: '58x256' is not LAYERSxEXPERTS:SLOTS/GPUS"),
        ("0x8:8/4", "shape: '0x8:8/4' has no layers"),
        ("1x8:9/4", "num_replicas: 9"),
        ("1x8:8/4:3/1", "num_gpus: 4"),
        ("1x16:8/4", "num_replicas: 8"),
    ],
)
def test_warm_refuses_a_shape_that_is_none(
    shape: str, complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["warm", "--device", "cpu", "--shape", shape]) == 2
    assert f"trimtab-server: {complaint}" in capsys.readouterr().err


def test_failpoints_are_no_setting_and_a_wrong_one_is_named(capsys):
    assert main(["serve", "--failpoints", "nowhere=exit"]) == 2
    assert "failpoints: 'nowhere' in 'nowhere=exit' is none of" in capsys.readouterr().err
    assert not [
        option for section in sections() for option in section.options if "fail" in option.name
    ]
