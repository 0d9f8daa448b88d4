"""What each distribution installs: an engine gets the client's alone."""

from __future__ import annotations

import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import trimtab_client
import trimtab_server
import trimtab_tools

ROOT = Path(__file__).parents[1]
PLUGINS = {"vllm": "vllm.general_plugins", "sglang": "sglang.srt.plugins"}
"""The engines that have a plug-in, and the group of entry points that each of them loads."""
FOLDERS = {"client": ROOT, "server": ROOT / "server", "tools": ROOT / "tools"}
FOLDERS |= {engine: ROOT / "plugins" / engine for engine in PLUGINS}
PACKAGES = {
    "client": {"trimtab", "trimtab_protocol", "trimtab_client"},
    "server": {"trimtab_server"},
    "tools": {"trimtab_tools"},
    **{engine: {f"trimtab_{engine}"} for engine in PLUGINS},
}


@pytest.fixture(scope="module")
def wheels(starts_processes: None, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("wheels")
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "-w", str(folder)]
    subprocess.run([*pip, *map(str, FOLDERS.values())], check=True)
    return {
        name: next(folder.glob(f"trimtab_{name}-{trimtab_client.__version__}-*.whl"))
        for name in FOLDERS
    }


@pytest.mark.parametrize("name", FOLDERS)
def test_a_wheel_holds_its_packages_and_says_that_they_are_typed(wheels, name):
    files = zipfile.ZipFile(wheels[name]).namelist()

    packages = {file.split("/")[0] for file in files if ".dist-info/" not in file}
    assert packages == PACKAGES[name]
    assert {f"{package}/py.typed" for package in packages} <= set(files)


@pytest.mark.parametrize("name", FOLDERS)
def test_every_module_of_a_package_is_in_its_wheel(wheels, name):
    files = set(zipfile.ZipFile(wheels[name]).namelist())

    folders = {"trimtab": ROOT / "protos", "trimtab_protocol": ROOT / "protocol"}
    folders["trimtab_client"] = ROOT / "client"
    for package in PACKAGES[name]:
        folder = folders.get(package, FOLDERS[name])
        modules = {str(path.relative_to(folder)) for path in (folder / package).rglob("*.py")}
        assert modules
        assert modules <= files


@pytest.mark.parametrize("name", FOLDERS)
def test_a_wheel_brings_its_licence(wheels, name):
    wheel = zipfile.ZipFile(wheels[name])

    for file in ("LICENSE", "NOTICE"):
        (found,) = (path for path in wheel.namelist() if path.endswith(f"/licenses/{file}"))
        assert wheel.read(found) == (ROOT / file).read_bytes()


@pytest.mark.parametrize("engine", PLUGINS)
def test_an_engine_finds_its_plugin(wheels, engine):
    wheel = zipfile.ZipFile(wheels[engine])

    (found,) = (path for path in wheel.namelist() if path.endswith("entry_points.txt"))
    lines = wheel.read(found).decode().split()
    assert lines == [f"[{PLUGINS[engine]}]", "trimtab", "=", f"trimtab_{engine}:register"]


@pytest.mark.slow
def test_the_clients_wheel_alone_has_no_command_and_runs(wheels, tmp_path):
    """Installed where nothing else is: no server, no tools, no torch."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path], check=True)
    python = tmp_path / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-compile"]
    subprocess.run([*pip, "-c", ROOT / "constraints.txt", wheels["client"]], check=True)

    def ask(code: str) -> set[str]:
        done = subprocess.run(
            [python, "-W", "error", "-c", code], capture_output=True, text=True, check=True
        )
        return set(done.stdout.split())

    names = "import importlib.metadata as m; print(*(d.name for d in m.distributions()))"
    wanted = {"trimtab-client", "grpcio", "numpy", "protobuf", "typing_extensions"}
    assert ask(names) == wanted
    assert not [path for path in (tmp_path / "bin").iterdir() if path.name.startswith("trimtab")]
    version = "import trimtab_client; print(trimtab_client.__version__)"
    assert ask(version) == {trimtab_client.__version__}


def test_all_distributions_have_one_version_and_depend_on_it():
    assert trimtab_client.__version__ == trimtab_server.__version__ == trimtab_tools.__version__
    for engine in PLUGINS:
        source = (FOLDERS[engine] / f"trimtab_{engine}" / "__init__.py").read_text()
        assert f'__version__ = "{trimtab_client.__version__}"' in source
    for name in ("server", "tools", *PLUGINS):
        text = (FOLDERS[name] / "pyproject.toml").read_text()
        pins = re.findall(r"trimtab-[a-z]+==([0-9.]+)", text)
        assert pins
        assert set(pins) == {trimtab_client.__version__}
