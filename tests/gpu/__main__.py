"""Check on a CUDA device that answers equal the reference's, and time them. One call does all.

Prints Markdown for tests/bench/RESULTS.md, and writes the same as JSON. What is wanted most comes
first; each section is a process of its own with a time of its own, so that neither a crash nor a
slow machine costs the others their figures. All together take nine minutes at most, also where
nothing has been compiled yet.

It needs Python 3.11 or newer, torch with CUDA, Triton, a C compiler, numba, scipy and numpy. The
section `serving` needs what a server needs, and is left out where something is missing.
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


def main() -> int:
    """Run the sections asked for; 1 if one failed or found an answer that differs."""
    given = _arguments()
    if given.rehearse:
        # Before anything imports Triton, here and in the sections.
        os.environ["TRITON_INTERPRET"] = "1"
    from tests.gpu.surroundings import surroundings

    facts = surroundings()
    if facts["device"] is None:
        print("no CUDA device here; --rehearse tries the script without one", file=sys.stderr)
        return 1
    print("Measured on: " + ", ".join(f"{name} {value}" for name, value in facts.items()) + ".")
    results: dict[str, Any] = {"surroundings": facts, "sections": {}}
    beside = [] if given.beside is None else ["--beside", _path_of(given.beside)]
    for name in given.sections or SECTIONS:
        results["sections"][name] = _carried_out(name, beside)
        if given.json is not None:
            given.json.write_text(json.dumps(results, indent=1) + "\n")
    failed = [name for name, ran in results["sections"].items() if ran["outcome"] == "failed"]
    print(f"\nFailed: {', '.join(failed)}." if failed else "\nNothing failed.")
    return int(bool(failed))


def _carried_out(name: str, beside: list[str]) -> dict[str, Any]:
    """Run one section; whatever happens, the next ones are run too."""
    began, limit = time.perf_counter(), SECTIONS[name].seconds
    with tempfile.NamedTemporaryFile() as file:
        command = [sys.executable, "-m", "tests.gpu.sections", name, "--tables", file.name]
        environment = {**os.environ, "PYTHONPATH": _path_of(_ROOT), "PYTHONUNBUFFERED": "1"}
        # A session of its own: when its time is over, its children end with it.
        child = subprocess.Popen(
            [*command, *beside], env=environment, cwd=_ROOT, start_new_session=True
        )
        try:
            code = child.wait(limit)
        except subprocess.TimeoutExpired:
            print(f"\n{name} is cut off after {limit} s", flush=True)
            os.killpg(child.pid, signal.SIGKILL)
            code = child.wait()
        tables = read_tables(Path(file.name))
    outcome = {0: "passed", LEFT_OUT: "left out"}.get(code, "failed")
    seconds = round(time.perf_counter() - began, 1)
    print(f"\n({name}: {outcome}, {seconds:.0f} s)", flush=True)
    return {"outcome": outcome, "seconds": seconds, "tables": tables}


def _path_of(root: Path) -> str:
    """PYTHONPATH of a build's sources; the tests are always these."""
    parts = [root / "protos", root / "server", root / "client", _ROOT]
    return os.pathsep.join(str(part.resolve()) for part in parts)


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
        help="another build of this project, such as `git worktree add` makes: timed turn by turn",
    )
    parser.add_argument(
        "--rehearse",
        action="store_true",
        help="on the CPU, in Triton's interpreter, with tiny problems: to try the script itself",
    )
    given = parser.parse_args()
    if unknown := [name for name in given.sections if name not in SECTIONS]:
        parser.error(f"no section {', '.join(unknown)}; there are {', '.join(SECTIONS)}")
    if given.beside is not None and not (given.beside / "server" / "trimtab_server").is_dir():
        parser.error(f"--beside: {given.beside} has no server/trimtab_server")
    return given


if __name__ == "__main__":
    sys.exit(main())
