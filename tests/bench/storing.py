"""What a save costs the store, and how large its files become, over some hundred switches."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from statistics import median, quantiles
from tempfile import TemporaryDirectory

import numpy as np

from tests.bench.options import Options
from tests.bench.tables import in_ms, print_table
from trimtab_protocol.history import Member
from trimtab_protocol.placement import Placement
from trimtab_protocol.version import Version
from trimtab_server.rollout.record import Epoch, Record, Served, Stage, Switch
from trimtab_server.store.sqlite import SqliteStore

LAYERS, EXPERTS, SLOTS, GPUS = 58, 256, 288, 32
SWITCHES = 300
PAST = 16


def run(options: Options) -> None:
    """Print the time of a save and the sizes of the files, on a disk and in memory."""
    switches = 3 if options.quick else SWITCHES
    caption = (
        f"{switches} switches of {LAYERS} layers of {EXPERTS} experts in {SLOTS} slots on {GPUS} "
        f"GPUs, all of which change, with {PAST} points to go back to. Each is saved three times."
    )
    columns = ["folder", "save p50 / p90 / p99 ms", "largest log MiB", "file MiB"]
    folders = [each for each in ("/tmp", "/dev/shm") if Path(each).exists()]  # noqa: S108
    print_table("Saves", columns, (_measure(each, switches) for each in folders), caption)


def _measure(where: str, switches: int) -> list[object]:
    times, largest = [], 0
    with TemporaryDirectory(prefix="trimtab-bench-", dir=where) as folder:
        path = Path(folder, "trimtab.db")
        log = path.with_name("trimtab.db-wal")
        with closing(SqliteStore(path)) as store:
            for record in _records(switches):
                began = time.perf_counter()
                store.save("d", record)
                times.append((time.perf_counter() - began) * 1e3)
                largest = max(largest, log.stat().st_size)
            percentiles = quantiles(times, n=100)
            figures = median(times), percentiles[89], percentiles[98]
            sizes = [f"{size / 2**20:.2f}" for size in (largest, path.stat().st_size)]
    return [where, " / ".join(map(in_ms, figures)), *sizes]


def _records(switches: int) -> Iterator[Record]:
    """A record for each save."""
    random = np.random.default_rng(0)
    members = {f"rank {gpu}": Member(1, (gpu,)) for gpu in range(GPUS)}
    now = Record(Epoch(1, "group", members, 0), Version(1, 0), _placement(random))
    for generation in range(1, switches + 1):
        version, placement = Version(1, generation), _placement(random)
        for stage in (Stage.OFFERED, Stage.COMMITTED):
            opened = Switch(version, placement, stage)
            yield replace(now, last_generation=generation, switch=opened)
        past = (*now.past, Served(*now.served))[-PAST:]
        now = replace(
            now, in_force=version, placement=placement, last_generation=generation, past=past
        )
        yield now


def _placement(random: np.random.Generator) -> Placement:
    more = SLOTS - EXPERTS
    rows = [
        [*random.permutation(EXPERTS), *random.integers(0, EXPERTS, more)] for _ in range(LAYERS)
    ]
    return Placement.of(np.array(rows), EXPERTS, GPUS)
