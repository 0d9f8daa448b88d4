"""Trimtab's policies beside the engines' own: see `tests.engines.figures`."""

from __future__ import annotations

import subprocess

from tests.bench.options import Options
from tests.engines.groups import FOLDER, ROOT, environ_of
from tests.servers import server_process


def run(options: Options) -> None:
    """Print what it prints."""
    if not (FOLDER / ".ready").exists():
        print("\nNot measured: engines: their code is not here: make engines", flush=True)
        return
    ours = "server", "protos", "protocol", "client"
    with server_process("--balance", "active") as server:
        subprocess.run(
            [
                *(FOLDER / "bin" / "python", "-m", "tests.engines.figures", server.address),
                *(["--quick"] if options.quick else []),
            ],
            cwd=ROOT,
            env=environ_of("vllm", "sglang", ours=ours),
            check=True,
        )
