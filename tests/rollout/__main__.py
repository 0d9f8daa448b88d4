"""Plays schedules by the thousand: python -m tests.rollout --first 0 --count 100000."""

from __future__ import annotations

import argparse
from collections import Counter
from concurrent.futures import ProcessPoolExecutor

from tests.rollout.schedule import play_many

_BATCH = 500


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.rollout", description=__doc__)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--count", type=int, default=10_000, help="how many seeds")
    parser.add_argument("--processes", type=int, default=None, help="one for each core")
    options = parser.parse_args()
    end = options.first + options.count
    batches = [
        range(first, min(first + _BATCH, end)) for first in range(options.first, end, _BATCH)
    ]
    totals: Counter[str] = Counter()
    failed = 0
    with ProcessPoolExecutor(options.processes) as pool:
        for counts, wrong in pool.map(play_many, batches):
            totals.update(counts)
            failed += len(wrong)
            for seed, complaints in wrong.items():
                print(f"seed {seed}: {'; '.join(complaints[:3])}", flush=True)
    print(f"{failed} of {totals['schedules']} schedules went wrong")
    for kind, times in sorted(totals.items()):
        print(f"  {kind}: {times}")
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
