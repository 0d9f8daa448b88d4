"""Trimtab's policies beside the engines' own: see `tests.engines.figures`."""

from __future__ import annotations

import os
import subprocess

from tests.bench.options import Options
from tests.engines.groups import FOLDER, ROOT
from tests.servers import server_process


def run(options: Options) -> None:
    """Print what it prints."""
    if not (FOLDER / ".ready").exists():
        print("\nNot measured: engines: their code is not here: make engines", flush=True)
        return
    ours = (ROOT / part for part in ("", "server", "protos", "protocol", "client"))
    paths = os.pathsep.join(map(str, (FOLDER / "vllm", FOLDER / "sglang", *ours)))
    threads = dict.fromkeys(("OMP_NUM_THREADS", "NUMBA_NUM_THREADS"), "1")
    with server_process("--balance", "active") as server:
        subprocess.run(
            [
                *(FOLDER / "bin" / "python", "-m", "tests.engines.figures", server.address),
                *(["--quick"] if options.quick else []),
            ],
            cwd=ROOT,
            env={**os.environ, **threads, "PYTHONPATH": paths},
            check=True,
        )
