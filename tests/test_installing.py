"""Which build of PyTorch an installation fetches: said before, and checked after."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from deploy.torch_build import announcement, complaint, has_gpu

ROOT = Path(__file__).parents[1]
INDEX = "https://index.invalid/cpu"

_PYTHON = """#!/bin/sh
echo "$@" >> {log}
case "$1 $2" in
    "-m venv") mkdir -p "$3/bin" && cp "$0" "$3/bin/python" ;;
    deploy/*) PYTHONPATH={torch} exec {python} "$@" ;;
esac
"""
"""Takes the place of Python and of pip, and installs nothing."""


@pytest.mark.parametrize(
    ("index", "environment", "is_linux", "gpu", "says"),
    [
        ("", {}, True, False, True),
        ("", {"PIP_EXTRA_INDEX_URL": ""}, True, False, True),
        (INDEX, {}, True, False, False),
        ("", {"PIP_EXTRA_INDEX_URL": INDEX}, True, False, False),
        ("", {"PIP_INDEX_URL": INDEX}, True, False, False),
        ("", {}, True, True, False),
        ("", {}, False, False, False),
    ],
)
def test_who_would_fetch_cuda_for_nothing_is_told(index, environment, is_linux, gpu, says) -> None:
    said = announcement(index, environment, is_linux=is_linux, has_gpu=gpu)
    assert (said is not None) == says
    for part in ("3 GB", "PyTorch's index of CPU builds", "INDEX=", "TORCH_CPU_INDEX"):
        assert said is None or part in said


def test_only_a_build_for_cuda_although_an_index_was_given_is_wrong() -> None:
    assert complaint("", "2.11.0", "12.9") is None
    assert complaint(INDEX, "2.11.0+cpu", None) is None
    said = str(complaint(INDEX, "2.11.0", "12.9"))
    assert f"torch 2.11.0 was built for CUDA 12.9, although the index {INDEX}" in said


def make(
    folder: Path, *arguments: str, cuda: str | None, fails: bool = True
) -> tuple[list[str], str]:
    """`make demo` with a Python that installs this build of torch: what it ran, and its errors."""
    log, python, torch = folder / "log", folder / "python", folder / "site" / "torch"
    torch.mkdir(parents=True)
    (torch / "__init__.py").write_text("from torch import version\n__version__ = '2.11.0'\n")
    (torch / "version.py").write_text(f"cuda = {cuda!r}\n")
    python.write_text(_PYTHON.format(log=log, torch=torch.parent, python=sys.executable))
    python.chmod(0o755)
    ours = ("PYTHONPATH", "PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "MAKEFLAGS", "ARGS")
    environment = {name: value for name, value in os.environ.items() if name not in ours}
    done = subprocess.run(
        ["make", "demo", f"PYTHON={python}", f"VENV={folder / 'venv'}", *arguments],
        cwd=ROOT,
        # Of the user's variables, only pip's own count.
        env={**environment, "INDEX": "no-index"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    # This Python installs no command trimtab-server.
    assert (done.returncode != 0) == fails, done
    return log.read_text().splitlines(), done.stderr


@pytest.mark.process
def test_make_says_what_it_will_fetch_and_fetches_it_without_an_index(tmp_path: Path) -> None:
    ran, errors = make(tmp_path, cuda="12.9")
    installed = next(each for each in ran if "pip install" in each)
    assert "--extra-index-url" not in installed
    assert ran.index("deploy/torch_build.py announce ") < ran.index(installed)
    assert ("about 3 GB" in errors) != has_gpu()
    assert "was built for CUDA" not in errors
    # The next step.
    assert "trimtab-server" in errors


@pytest.mark.process
@pytest.mark.parametrize("cuda", [None, "12.9"])
def test_make_gives_pip_the_index_and_fails_if_torch_then_has_cuda(
    tmp_path: Path, cuda: str | None
) -> None:
    ran, errors = make(tmp_path, f"INDEX={INDEX}", cuda=cuda)
    (installed,) = (each for each in ran if "pip install" in each)
    assert f"--extra-index-url {INDEX}" in installed
    assert "about 3 GB" not in errors
    assert ("was built for CUDA 12.9" in errors) == (cuda is not None)
    assert ("trimtab-server" in errors) == (cuda is None)


@pytest.mark.process
@pytest.mark.parametrize("cuda", [None, "12.9"])
def test_make_checks_what_was_installed_before(tmp_path: Path, cuda: str | None) -> None:
    # The stamp of an installation is younger than all that it depends on.
    (tmp_path / "venv" / "bin").mkdir(parents=True)
    stamp = tmp_path / "venv" / ".server"
    stamp.touch()
    os.utime(stamp, (2**32, 2**32))
    (tmp_path / "venv" / "bin" / "python").symlink_to(tmp_path / "python")
    ran, errors = make(tmp_path, f"INDEX={INDEX}", cuda=cuda, fails=cuda is not None)
    assert not [each for each in ran if "pip install" in each]
    assert ("was built for CUDA 12.9" in errors) == (cuda is not None)
    assert ("examples/demo.py" in ran) == (cuda is None)


def test_the_image_checks_what_it_got_and_compose_passes_the_index_on() -> None:
    stage = re.search(r"^FROM base AS torch-cpu\n(.*?)\n\n", DOCKERFILE, re.DOTALL | re.MULTILINE)
    assert stage is not None
    announce, install, check = (
        stage[1].index(part) for part in ("announce", "pip install", 'check "$TORCH_CPU_INDEX"')
    )
    assert announce < install < check
    assert "!deploy/torch_build.py" in (ROOT / ".dockerignore").read_text().splitlines()
    assert "TORCH_CPU_INDEX: ${TORCH_CPU_INDEX:-}" in COMPOSE


DOCKERFILE = (ROOT / "Dockerfile").read_text()
COMPOSE = (ROOT / "docker-compose.yml").read_text()


def test_what_to_give_stands_in_the_first_lines() -> None:
    quick_start = (ROOT / "README.md").read_text().partition("## Quick start\n")[2]
    for text in (quick_start[:600], COMPOSE[:600], DOCKERFILE[:600]):
        assert "PyTorch's index of CPU builds (see PyTorch's install page" in text
        assert "INDEX=..." in text
        assert "3 GB" in text
