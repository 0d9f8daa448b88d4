"""Makes a place where the engines' own code runs without a GPU.

    python tests/engines/prepare.py FOLDER

The folder gets a virtual environment with this project's client and plug-ins, and the Python files
of the engines' wheels. Their machine code is left out: it needs an accelerator.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
TESTS = "tests/distributed/test_eplb_algo.py"
ENGINES = {"vllm": "0.33.0", "sglang": "0.5.23", "vllm-ascend": "0.26.0rc1"}

ONLY_PYTHON = (
    *("--only-binary", ":all:", "--platform", "manylinux_2_34_x86_64"),
    *("--platform", "manylinux_2_28_x86_64", "--platform", "manylinux2014_x86_64"),
    *("--python-version", "3.11", "--implementation", "cp", "--abi", "cp311", "--abi", "abi3"),
)
"""Wheels of one kind of machine, whatever this one is: nothing but their Python files is run."""


def main() -> None:
    """Make the folder."""
    folder = Path(sys.argv[1])
    venv.create(folder, with_pip=True, clear=True)
    [torch] = re.findall("^torch==.*$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    pip(folder, "install", torch, "-r", *packages())
    for name, version in ENGINES.items():
        wheels = folder / "wheels"
        which = *ONLY_PYTHON, "--no-deps", "--dest", wheels
        pip(folder, "download", *which, f"{name}=={version}")
        [wheel] = wheels.glob("*.whl")
        with zipfile.ZipFile(wheel) as files:
            names = [each for each in files.namelist() if not each.endswith((".so", ".cubin"))]
            files.extractall(folder / name, members=names)  # noqa: S202 - a ZipFile keeps inside
        wheel.unlink()
    call_it_a_build_for_cpus(folder / "vllm", ENGINES["vllm"])
    fetch_tests(folder, "vllm", ENGINES["vllm"])
    describe(folder / "sglang", "torchvision", "0.28.0")


def packages() -> list[str | Path]:
    """What is installed beside torch."""
    plugins = [part for each in sorted((ROOT / "plugins").iterdir()) for part in ("-e", each)]
    return [Path(__file__).with_name("requirements.txt"), "-e", ROOT, *plugins]


def pip(folder: Path, *arguments: str | Path, **environ: str) -> None:
    """Run pip in the environment."""
    command = [folder / "bin" / "python", "-m", "pip", "--disable-pip-version-check", "-q"]
    subprocess.run([*command, *arguments], check=True, env={**os.environ, **environ})


def call_it_a_build_for_cpus(folder: Path, version: str) -> None:
    """Give vLLM the version of its build for CPUs, from which it takes its platform."""
    described = (folder / f"vllm-{version}.dist-info").rename(
        folder / f"vllm-{version}+cpu.dist-info"
    )
    metadata = described / "METADATA"
    text = metadata.read_text()
    metadata.write_text(text.replace(f"\nVersion: {version}\n", f"\nVersion: {version}+cpu\n"))


def fetch_tests(folder: Path, name: str, version: str) -> None:
    """Unpack vLLM's own tests of its policy; only the source distribution has them."""
    # pip asks the package for its version, which names the platform unless it is told.
    as_it_is = {"VLLM_TARGET_DEVICE": "empty", "VLLM_VERSION_OVERRIDE": version}
    source = folder / "source"
    options = ("--no-deps", "--no-binary", name, "--no-build-isolation", "--dest", source)
    pip(folder, "download", *options, f"{name}=={version}", **as_it_is)
    [archive] = source.glob("*.tar.gz")
    with tarfile.open(archive) as files:
        member = files.getmember(f"{name}-{version}/{TESTS}")
        member.name = f"{name}-tests/{TESTS}"
        files.extract(member, folder, filter="data")
    archive.unlink()


def describe(folder: Path, name: str, version: str) -> None:
    """Let SGLang find the version of a package that it imports and does not use here."""
    described = folder / f"{name}-{version}.dist-info"
    described.mkdir()
    lines = ("Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}", "")
    (described / "METADATA").write_text("\n".join(lines))


if __name__ == "__main__":
    main()
