"""Check on a CUDA device that answers equal the reference's, and time them, all in one call.

Prints Markdown for tests/bench/RESULTS.md, and writes the same as JSON. The most important sections
come first. Each section has its own process and its own time limit, so that the others get their
figures even if one crashes or the machine is slow. All sections together take at most nine minutes,
even if nothing has been compiled yet.

It needs Python 3.11 or newer, torch with CUDA, Triton, a C compiler, numba, scipy and numpy. The
section `serving` needs the packages of a server, and is skipped if one is missing.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.gpu.report import read_tables
from tests.gpu.sections import LEFT_OUT, SECTIONS

_ROOT = Path(__file__).parents[2]

_REHEARSAL_PATIENCE = 20
"""A rehearsal costs no time on a GPU, and may run on a busy machine."""


def main() -> int:
    """Run the requested sections; 1 if one failed or found an answer that differs."""
    given = _arguments()
    if given.rehearse:
        # Set before any import of Triton, here and in the sections.
        os.environ["TRITON_INTERPRET"] = "1"
    from tests.gpu.surroundings import surroundings

    facts = surroundings()
    if facts["device"] is None:
        print("no CUDA device here; --rehearse tries the script without one", file=sys.stderr)
        return 1
    print("Measured on: " + ", ".join(f"{name} {value}" for name, value in facts.items()) + ".")
    results: dict[str, Any] = {"surroundings": facts, "sections": {}}
    beside = [] if given.beside is None else ["--beside", _path_of(given.beside)]
    patience = _REHEARSAL_PATIENCE if given.rehearse else 1
    for name in given.sections or SECTIONS:
        results["sections"][name] = _carried_out(name, beside, patience)
        if given.json is not None:
            given.json.write_text(json.dumps(results, indent=1) + "\n")
    failed = [name for name, ran in results["sections"].items() if ran["outcome"] == "failed"]
    print(f"\nFailed: {', '.join(failed)}." if failed else "\nNothing failed.")
    return int(bool(failed))


def _carried_out(name: str, beside: list[str], patience: int) -> dict[str, Any]:
    """Run one section, and return its results even if it fails."""
    began, limit = time.perf_counter(), SECTIONS[name].seconds * patience
    with tempfile.NamedTemporaryFile() as file:
        command = [sys.executable, "-m", "tests.gpu.sections", name, "--tables", file.name]
        environment = {**os.environ, "PYTHONPATH": _path_of(_ROOT), "PYTHONUNBUFFERED": "1"}
        # In a new session, so that its children are killed with it at the time limit.
        child = subprocess.Popen(
            [*command, *beside], env=environment, cwd=_ROOT, start_new_session=True
        )
        try:
            code = child.wait(limit)
        except subprocess.TimeoutExpired:
            print(f"\n{name} was stopped after {limit} s", flush=True)
            os.killpg(child.pid, signal.SIGKILL)
            code = child.wait()
        tables = read_tables(Path(file.name))
    outcome = {0: "passed", LEFT_OUT: "left out"}.get(code, "failed")
    seconds = round(time.perf_counter() - began, 1)
    print(f"\n({name}: {outcome}, {seconds:.0f} s)", flush=True)
    return {"outcome": outcome, "seconds": seconds, "tables": tables}


def _path_of(root: Path) -> str:
    """PYTHONPATH for the sources of a build, with the tests of this one."""
    folders = (root / name for name in ("protos", "protocol", "client", "server", "tools"))
    return os.pathsep.join(str(path.resolve()) for path in (*folders, _ROOT))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.gpu", description=__doc__)
    parser.add_argument(
        "sections", nargs="*", metavar="SECTION", help=f"{', '.join(SECTIONS)} (default: all)"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures there")
    parser.add_argument(
        "--beside",
        type=Path,
        metavar="FOLDER",
        help="folder of another build of this project, such as a git worktree, to time in turns",
    )
    parser.add_argument(
        "--rehearse",
        action="store_true",
        help="run tiny problems on the CPU, in Triton's interpreter, to test the script itself",
    )
    given = parser.parse_args()
    if unknown := [name for name in given.sections if name not in SECTIONS]:
        parser.error(f"no section {', '.join(unknown)}; there are {', '.join(SECTIONS)}")
    if given.beside is not None and not (given.beside / "server" / "trimtab_server").is_dir():
        parser.error(f"--beside: {given.beside} has no server/trimtab_server")
    return given


if __name__ == "__main__":
    sys.exit(main())
