"""`python -m tests.bench [SECTION …]`: measure, and print Markdown."""

from __future__ import annotations

import argparse

from tests.bench import balance, replay, rpc
from tests.bench.tables import machine

SECTIONS = {
    "balance": balance.run,
    "replay": replay.run,
    "rpc": rpc.run,
    "constants": replay.constants,
    "noise": balance.noise,
    "presets": balance.presets,
}
USUAL = ["balance", "replay", "rpc"]


def main() -> None:
    """Run the sections asked for, the first three by default."""
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument(
        "sections", nargs="*", choices=[*SECTIONS, []], default=USUAL, help="what to measure"
    )
    parser.add_argument("--repeats", type=int, default=5, help="calls per median (default: 5)")
    arguments = parser.parse_args()
    print(f"Measured {machine()}.")
    for section in arguments.sections:
        SECTIONS[section](arguments.repeats)


if __name__ == "__main__":
    main()
