"""Variables of the environment that look like settings: refused, warned of, or left alone."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from trimtab_server.config import ServerConfig, load_config, sections, unknown_in
from trimtab_server.domain.errors import InvalidArgumentError
from trimtab_server.environment import OTHER_PROGRAMS

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize(
    ("name", "setting"),
    [
        ("TRIMTAB_QUEUE_SIZ", "TRIMTAB_QUEUE_SIZE"),
        ("TRIMTAB_QUEUE_SIZES", "TRIMTAB_QUEUE_SIZE"),
        ("TRIMTAB_QUEUE-SIZE", "TRIMTAB_QUEUE_SIZE"),
        ("TRIMTAB_QUEEU_SIZE", "TRIMTAB_QUEUE_SIZE"),
        ("TRIMTAB_LISTEM", "TRIMTAB_LISTEN"),
        ("TRIMTAB_CONFG", "TRIMTAB_CONFIG"),
    ],
)
def test_what_is_one_edit_from_a_setting_is_refused_with_the_nearest(name, setting):
    with pytest.raises(InvalidArgumentError) as refused:
        load_config({}, {name: "1"})
    said = f"{name}: no such setting: it is spelt {setting} (in the environment)"
    assert str(refused.value) == said


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("TRIMTAB_QUEUE_LENGTH", "TRIMTAB_QUEUE_SIZE"),
        # Neighbours that are swapped are one edit, others are two.
        ("TRIMTAB_QUEUE_EISZ", "TRIMTAB_QUEUE_SIZE"),
        ("TRIMTAB_queue_size", "TRIMTAB_QUEUE_SIZE"),
    ],
)
def test_what_is_further_from_all_settings_is_taken_with_a_warning(name, nearest):
    environment = {name: "1"}
    assert load_config({}, environment) == ServerConfig()
    assert unknown_in(environment) == [(name, nearest, False)]


@pytest.mark.parametrize("service", ["TRIMTAB", "TRIMTAB_SERVER", "TRIMTAB_LISTEN"])
def test_what_kubernetes_sets_for_a_service_is_no_setting(service):
    port = f"{service}_PORT"
    names = [f"{service}_SERVICE_{each}" for each in ("HOST", "PORT", "PORT_GRPC", "PORT_A_B")]
    names += [port, *(f"{port}_50051_TCP{each}" for each in ("", "_PROTO", "_PORT", "_ADDR"))]
    environment = dict.fromkeys(names, "tcp://10.0.0.1:50051")
    assert load_config({}, environment) == ServerConfig()
    assert unknown_in(environment) == []


def test_no_setting_has_a_name_that_kubernetes_sets():
    for option in (option for section in sections() for option in section.options):
        assert not re.search(r"_(SERVICE_HOST|SERVICE_PORT|PORT)(_|$)", option.env)


def test_what_the_other_programs_of_this_project_read_is_known():
    folders = ("client", "tools", "plugins", "examples")
    sources = [path for folder in folders for path in (ROOT / folder).rglob("*.py")]
    read = {name for path in sources for name in _names(path.read_text())}
    # Tests set variables to anything, so only what they read counts.
    for path in (ROOT / "tests").rglob("*.py"):
        for line in path.read_text().splitlines():
            read |= set(_names(line)) if "environ.get(" in line or "environ[" in line else set()
    read |= set(_names((ROOT / "CONTRIBUTING.md").read_text()))
    assert {"TRIMTAB_TARGET", "TRIMTAB_SERVER", "TRIMTAB_GPU_TARGETS"} <= read
    assert read == OTHER_PROGRAMS
    assert unknown_in(dict.fromkeys(read, "")) == []


def _names(text: str) -> list[str]:
    return re.findall(r"TRIMTAB_[A-Z_]*[A-Z](?![A-Z_])", text)


@pytest.mark.process
def test_a_server_warns_once_of_each_unknown_variable(tmp_path: Path) -> None:
    names = ("TRIMTAB_QUEUE_LENGTH", "TRIMTAB_PORT", "TRIMTAB_DEPLOYMENT", "TRIMTAB_LOG_FORMAT")
    # It ends at once, since it cannot open its store.
    store = ("--store", str(tmp_path / "none" / "db"))
    done = subprocess.run(
        [sys.executable, "-m", "trimtab_server", "serve", "--metrics-listen", "off", *store],
        env={**os.environ, **dict.fromkeys(names, "json")},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    *logged, ended = done.stderr.splitlines()
    events = [event for event in map(json.loads, logged) if event["event"] == "no such setting"]
    assert [(event["variable"], event["nearest"], event["level"]) for event in events] == [
        ("TRIMTAB_QUEUE_LENGTH", "TRIMTAB_QUEUE_SIZE", "warning")
    ]
    assert done.returncode == 2
    folder = tmp_path / "none"
    assert ended == (
        f"trimtab-server: store: store {folder / 'db'}: there is no folder {folder}: create it, "
        "or name another file"
    )
    assert not folder.exists()
