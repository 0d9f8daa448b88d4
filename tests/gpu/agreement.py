"""Compares the answers of Cuda on the device with the reference's, for many shapes in parallel.

`python -m tests.gpu.agreement PART PARTS SECONDS` is one worker. Compiling a shape takes seconds,
so several workers share the cases, each in its own process.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from tests.bench.loads import realistic
from tests.gpu.report import Report
from tests.gpu.surroundings import DEVICE, REHEARSAL
from tests.solver.triton_cases import PACKS, PLANS, random_rows
from trimtab_server.domain.topology import Topology
from trimtab_server.solver.backends.backend import Backend, Packing, Solved
from trimtab_server.solver.backends.cuda.backend import Cuda
from trimtab_server.solver.backends.reference.backend import Reference
from trimtab_server.solver.settings import Settings

Ask = Callable[[Backend, torch.device], Packing | Solved]

REALISTIC = {
    "288 / 32": (Topology(288, 32), Settings(16, None, 2)),
    "288 / 72": (Topology(288, 72), Settings(16, None, 2)),
    "320 / 64": (Topology(320, 64), Settings(8, 20, 3, seed=7)),
    "288 / 8": (Topology(288, 8), Settings(4, None, 2)),
    "512 / 64": (Topology(512, 64), Settings(4, None, 2)),
    "256 / 256": (Topology(256, 256), Settings(16, None, 1)),
    "288 / 32, 4 nodes, 8 groups": (Topology(288, 32, 4, 8), Settings(16, None, 4)),
    "288 / 32, 4 nodes, 16 groups": (Topology(288, 32, 4, 16), Settings(8, None, 2)),
    "288 / 36, 2 nodes, 2 groups": (Topology(288, 36, 2, 2), Settings(16, None, 2, "range")),
    "288 / 32, fast": (Topology(288, 32), Settings(4, 20, 1)),
    "288 / 32, tolerance": (Topology(288, 32), Settings(16, None, 2, tolerance=1e-3)),
}


def run(report: Report, _beside: str | None) -> bool:
    """Whether all answers that workers compared were equal; prints those that differ."""
    workers, seconds = (1, 0) if REHEARSAL else (min(16, os.cpu_count() or 1), 45)
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.gpu.agreement", str(part), str(workers), str(seconds)],
            stdout=subprocess.PIPE,
            text=True,
        )
        for part in range(workers)
    ]
    equal, told = 0, []
    for process in processes:
        output, _ = process.communicate()
        *lines, last = output.splitlines() or [""]
        told += lines
        if process.returncode or not last.isdigit():
            told.append(f"- a worker ended with {process.returncode}: {last}")
            continue
        equal += int(last)
    columns = ["requests answered alike", "not"]
    report.table(
        "Answers of cuda and of the reference, on the device", columns, [[equal, len(told)]]
    )
    print("\n".join(told), flush=True)
    return not told


def _worker(part: int, parts: int, seconds: float) -> None:
    """Print each request whose answers differ, and at the end how many are equal."""
    torch.set_num_threads(2)
    end = time.monotonic() + seconds
    told: list[tuple[str, ...]] = []
    cuda, reference = Cuda(DEVICE, lambda *what: told.append(what)), Reference()
    equal = 0
    for name, ask in list(_fixed())[part::parts]:
        equal += _same(name, ask, cuda, reference, told)
    generator = random.Random(part)
    while time.monotonic() < end:
        equal += _same(*_random(generator), cuda, reference, told)
    print(equal)


def _same(
    name: str, ask: Ask, cuda: Backend, reference: Backend, told: list[tuple[str, ...]]
) -> bool:
    """Send a request from the host and from the device, each twice: the second replays a graph."""
    host = torch.device("cpu")
    expected = _values(ask(reference, host))
    found = [_values(ask(cuda, on)) for on in (host, host, DEVICE, DEVICE)]
    ok = all(_equal(expected, answer) for answer in found)
    if not ok or told:
        # Requests that the host answered are reported too, since they prove nothing.
        print(f"- {name}: {'equal' if ok else 'DIFFERENT'} {told}", flush=True)
    passed, told[:] = ok and not told, []
    return passed


def _values(answer: Packing | Solved) -> list[Tensor]:
    if isinstance(answer, Packing):
        tensors = [answer.pack_index, answer.rank_in_pack]
    else:
        tensors = [answer.phy2log_LR]
    return [*(tensor.cpu() for tensor in tensors), torch.tensor([answer.iterations, answer.swaps])]


def _equal(expected: list[Tensor], found: list[Tensor]) -> bool:
    return all(torch.equal(*pair) for pair in zip(expected, found, strict=True))


def _fixed() -> Iterator[tuple[str, Ask]]:
    if REHEARSAL:
        for name in ("one item per pack", "dead end"):
            yield name, _pack(*PACKS[name])
        return
    for name, (topology, how) in REALISTIC.items():
        yield name, _plan(torch.from_numpy(realistic()), topology, how)
    for name, (weight_XI, packs, group_XI, how) in PACKS.items():
        yield name, _pack(weight_XI, packs, group_XI, how)
    # Run only here, since Triton's interpreter takes minutes for it.
    group_XI = torch.arange(264).clamp(min=259).unsqueeze(0) - 259
    yield (
        "more of a group in a pack than a byte counts",
        _pack(random_rows("counts", 1, 264, 0), 2, group_XI, Settings(1, 4, 1)),
    )
    for name, (load_LE, topology, how) in PLANS.items():
        yield name, _plan(load_LE, topology, how)


def _random(generator: random.Random) -> tuple[str, Ask]:
    """A request of a random shape: a packing or a plan, of few or many items."""
    packs, slots = generator.randint(1, 40), generator.randint(1, 12)
    how = Settings(
        generator.choice([1, 2, 4, 7, 16]),
        generator.choice([0, 5, 20, None]),
        generator.randint(1, 4),
        generator.choice(["l2", "l2", "range"]),
        generator.getrandbits(64),
        generator.choice([0.0, 0.0, 0.01]),
    )
    kind, seed = (
        generator.choice(["ties", "counts", "fractions", "skewed"]),
        generator.getrandbits(30),
    )
    items = packs * slots
    if generator.random() < 0.5:
        groups = None
        if generator.random() < 0.7:
            groups = random_rows("counts", 5, items, seed + 1).long() % generator.randint(1, items)
        name = f"pack {kind} {items} / {packs}, {how}, seed {seed}"
        return name, _pack(random_rows(kind, 5, items, seed), packs, groups, how)
    experts = generator.randint(max(1, items // 2), items)
    name = f"plan {kind} {experts}, {items} / {packs}, {how}, seed {seed}"
    return name, _plan(random_rows(kind, 5, experts, seed), Topology(items, packs), how)


def _pack(weight_XI: Tensor, packs: int, group_XI: Tensor | None, how: Settings) -> Ask:
    def ask(backend: Backend, on: torch.device) -> Packing:
        groups = None if group_XI is None else group_XI.to(on)
        return backend.pack(weight_XI.to(on), packs, groups, how)

    return ask


def _plan(load_LE: Tensor, topology: Topology, how: Settings) -> Ask:
    def ask(backend: Backend, on: torch.device) -> Solved:
        return backend.plan(load_LE.to(on), topology, how)

    return ask


if __name__ == "__main__":
    _worker(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]))
