"""`python -m tests.bench [SECTION …]`: measure, and print Markdown."""

from __future__ import annotations

import argparse
import os
import sys
import traceback
from pathlib import Path
from typing import get_args

from tests.bench import (
    aside,
    backends,
    balance,
    busy,
    concurrency,
    crowd,
    deciding,
    engine_calls,
    engines,
    flood,
    growth,
    improving,
    leak,
    null,
    policy,
    replay,
    rpc,
    served,
    sessions,
    start,
    storing,
    switching,
)
from tests.bench.options import LimitError, Options, Section
from tests.bench.tables import machine
from trimtab_server.solver import BackendName

SECTIONS: dict[str, list[Section]] = {
    "backends": [backends.run],
    "improve": [improving.run, improving.few_gpus],
    "busy": [busy.run],
    "growth": [growth.run],
    "balance": [balance.run],
    "replay": [replay.run],
    "policy": [policy.run],
    "decision": [deciding.run],
    "served": [served.run],
    "aside": [aside.run],
    "null": [null.run],
    "rpc": [rpc.run, concurrency.run, start.run],
    "sessions": [engine_calls.run, sessions.run, switching.run],
    "crowd": [crowd.run],
    "store": [storing.run],
    "engines": [engines.run],
    "leak": [leak.run],
    "flood": [flood.run],
    "constants": [replay.constants],
    "noise": [balance.noise],
    "presets": [balance.presets],
}
USUAL = ["backends", "improve", "replay", "rpc"]


def main() -> int:
    """Run the requested sections; 1 if one failed, or found a figure above its limit."""
    sections, options = _arguments()
    # Other processes slow torch most, since its threads wait for each other all the time:
    # beside two busy processes, the reference took 30 times as long.
    print(f"Measured {machine()}; load average {os.getloadavg()[0]:.1f}.", flush=True)
    failed = False
    for section in sections:
        for run in SECTIONS[section]:
            try:
                run(options)
            except LimitError as error:
                failed = True
                print(f"\n{section}: {error}", file=sys.stderr)
            except Exception:  # noqa: BLE001 - a long run continues with the next section
                failed = True
                traceback.print_exc()
    return int(failed)


def _arguments() -> tuple[list[str], Options]:
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument(
        "sections",
        nargs="*",
        metavar="SECTION",
        help=f"{', '.join(SECTIONS)} (default: {' '.join(USUAL)})",
    )
    parser.add_argument("--repeats", type=int, default=5, help="calls per median (default: 5)")
    parser.add_argument(
        "--backend",
        dest="backends",
        action="append",
        default=[],
        choices=get_args(BackendName),
        help="measure this backend only; may be repeated (default: all that can run here)",
    )
    parser.add_argument(
        "--peer",
        dest="peers",
        action="append",
        default=[],
        type=Path,
        metavar="FILE",
        help="Python file with rebalance_experts(weight, num_replicas, num_groups, num_nodes, "
        "num_gpus), to run beside ours in `backends`; may be repeated",
    )
    parser.add_argument(
        "--memory", action="store_true", help="also measure peak memory in `backends` (slow)"
    )
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="also write the figures of `served` there"
    )
    parser.add_argument("--seeds", type=int, default=3, help="seeds of `null` (default: 3)")
    parser.add_argument("--quick", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    unknown = [section for section in given.sections if section not in SECTIONS]
    if unknown:
        parser.error(f"no section {', '.join(unknown)}; there are {', '.join(SECTIONS)}")
    if given.repeats < 1:
        parser.error(f"--repeats {given.repeats} is below 1")
    if given.seeds < 1:
        parser.error(f"--seeds {given.seeds} is below 1")
    missing = [str(path) for path in given.peers if not path.is_file()]
    if missing:
        parser.error(f"--peer: no file {', '.join(missing)}")
    return given.sections or USUAL, Options(
        repeats=given.repeats,
        backends=tuple(given.backends),
        peers=tuple(given.peers),
        memory=given.memory,
        json=given.json,
        seeds=given.seeds,
        quick=given.quick,
    )


if __name__ == "__main__":
    sys.exit(main())
