"""Replays of real traffic, balanced by a server and eight sessions over sockets, by policy."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from pathlib import Path

import torch

from tests.bench import played
from tests.bench.loads import trace
from tests.bench.lockstep import serve
from tests.bench.options import Options
from tests.bench.played import Played, print_played
from tests.bench.replay import REPLAYS
from tests.bench.shifts import print_shifts
from tests.servers import server_process
from trimtab_client import Policy

REPORT_SECONDS = 0.01

CAPTION = (
    f"{played.CAPTION} Policies: a server process and eight workers of one GPU, over sockets. "
    "The server decides once all have reported a window."
)

POLICIES = {
    played.DEFAULT: Policy(),
    **{label: Policy(least_gain=least) for label, least in played.KNOB.items()},
}


def run(options: Options) -> None:
    """Compare a server's policies with full, aligned re-plans, and write the means."""
    names = list(REPLAYS)[2:] if options.quick else list(REPLAYS)
    tables = {}
    with server_process("--balance", "active", "--report-seconds", str(REPORT_SECONDS)) as server:
        for name in names:
            tables[name] = _table(server.address, name, windows=20 if options.quick else None)
            print_played(name, REPLAYS[name], tables[name], CAPTION)
            print_shifts(name, tables[name])
    if options.json is not None:
        _write(options.json, tables)


def _table(address: str, name: str, windows: int | None) -> dict[str, Played]:
    load_TLE, topology = torch.from_numpy(trace(name))[:windows], REPLAYS[name]
    table = played.replans(load_TLE, topology)
    for label, policy in POLICIES.items():
        serving = serve(address, f"{name}, {label}", load_TLE, topology, policy)
        table[label] = asyncio.run(serving)
    spent = table[played.DEFAULT].outcome.moves
    table[played.AS_MANY] = played.with_as_many_moves(load_TLE, topology, spent)
    return table


def _write(path: Path, tables: Mapping[str, Mapping[str, Played]]) -> None:
    """The means, for `tests.bench.plot`."""
    document = {
        name: {
            "slots": REPLAYS[name].num_replicas,
            "gpus": REPLAYS[name].num_gpus,
            "plans": {label: _means(each) for label, each in table.items()},
        }
        for name, table in tables.items()
    }
    path.write_text(json.dumps(document, indent=1) + "\n")


def _means(each: Played) -> dict[str, float]:
    balancedness, moves = each.outcome
    return {"balancedness": round(balancedness, 4), "moves": round(moves, 3)}
