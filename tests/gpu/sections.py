"""The sections of `python -m tests.gpu`, the most important first; each has its own process.

`python -m tests.gpu.sections NAME [--tables FILE] [--beside PATH]` runs one.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from pathlib import Path
from typing import NamedTuple

from tests.gpu.report import LeftOutError, Report

FAILED, LEFT_OUT = 1, 3
"""Exit codes of a section, besides 0."""


class Section(NamedTuple):
    """A section: its module in tests.gpu, which has `run`, and its time limit in seconds."""

    module: str
    seconds: int


SECTIONS = {
    "compile": Section("compiling", 90),
    "agreement": Section("agreement", 110),
    "plans": Section("plans", 60),
    "beside": Section("beside", 60),
    "phases": Section("phases", 30),
    "place": Section("places", 60),
    "serving": Section("serving", 60),
    "warps": Section("sweep", 70),
}
"""Nine minutes in all."""


def main() -> int:
    """Run one section: 0, FAILED or LEFT_OUT."""
    parser = argparse.ArgumentParser(prog="python -m tests.gpu.sections")
    parser.add_argument("name", choices=SECTIONS)
    parser.add_argument("--tables", type=Path, help="file for the rows, as JSON lines")
    parser.add_argument("--beside", help="PYTHONPATH of another build, for `beside`")
    given = parser.parse_args()
    module = importlib.import_module(f"tests.gpu.{SECTIONS[given.name].module}")
    try:
        passed = module.run(Report(given.tables), given.beside)
    except LeftOutError as error:
        print(f"\n{given.name} is left out: {error}", flush=True)
        return LEFT_OUT
    return 0 if passed else FAILED


if __name__ == "__main__":
    sys.exit(main())
