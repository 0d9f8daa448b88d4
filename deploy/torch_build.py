"""Says which build of PyTorch an installation fetches, and checks which one it got.

    python deploy/torch_build.py announce [INDEX]    before: what pip will fetch
    python deploy/torch_build.py check [INDEX]       after: fails if torch has CUDA despite INDEX

INDEX is the address of PyTorch's index of CPU builds; empty if the user gave none. PyTorch's
install page shows it under "Compute platform: CPU". It is not written here: which index to trust
is for the user to say.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

_PAGE = "PyTorch's index of CPU builds (see PyTorch's install page, \"Compute platform: CPU\")"
_OWN_INDEXES = ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL")


def announcement(
    index: str, environment: Mapping[str, str], *, is_linux: bool, has_gpu: bool
) -> str | None:
    """What to say before the download; None if there is nothing to say.

    Args:
        index: that the user gave; empty if there is none.
        environment: variables by name. pip takes an index from them too.
        is_linux: elsewhere, the standard builds have no CUDA.
        has_gpu: whether this machine has an NVIDIA GPU.
    """
    if index or has_gpu or not is_linux or any(environment.get(name) for name in _OWN_INDEXES):
        return None
    return (
        "This machine has no NVIDIA GPU, and the standard build of PyTorch brings about 3 GB of "
        "CUDA libraries,\nwhich pip is about to fetch. To fetch a build without them instead, stop "
        f"this and give\n{_PAGE}:\nmake INDEX=..., or the environment's PIP_EXTRA_INDEX_URL; "
        "for an image, TORCH_CPU_INDEX."
    )


def complaint(index: str, version: str, cuda: str | None) -> str | None:
    """Why the torch that was installed is not the one asked for; None if it is.

    Args:
        index: that the user gave; empty if there is none.
        version: of the torch that is installed.
        cuda: version of CUDA that it was built for; None if it was built without.
    """
    if not index or cuda is None:
        return None
    return (
        f"torch {version} was built for CUDA {cuda}, although the index {index} was given for a "
        f"build without CUDA.\nGive {_PAGE}, and begin anew (make clean)."
    )


def has_gpu() -> bool:
    """Whether this machine has an NVIDIA GPU, as far as its driver tells."""
    return shutil.which("nvidia-smi") is not None or Path("/proc/driver/nvidia").exists()


def main(arguments: list[str]) -> int:
    """Carry out the command; returns 1 if torch is not the build that was asked for."""
    command, index = "".join(arguments[:1]), "".join(arguments[1:])
    if command not in ("announce", "check"):
        print(__doc__, file=sys.stderr)
        return 2
    if command == "announce":
        is_linux = sys.platform == "linux"
        said = announcement(index, os.environ, is_linux=is_linux, has_gpu=has_gpu())
        print(said or "", end="\n" if said else "", file=sys.stderr)
        return 0
    import torch

    said = complaint(index, torch.__version__, torch.version.cuda)
    print(said or "", end="\n" if said else "", file=sys.stderr)
    return 0 if said is None else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
