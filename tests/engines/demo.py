"""`make demo-vllm`: vLLM's own load balancer on four CPU ranks, which follows Trimtab."""

from __future__ import annotations

import tempfile
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from tests.engines.groups import FOLDER, Host
from tests.engines.prepare import ENGINES
from tests.engines.vllm_group import EXPERTS, INTERVAL, LAYERS, RANKS, SLOTS
from tests.servers import server_process
from trimtab_tools.cli import main as trimtab
from trimtab_tools.simulate.windows import imbalance_of

NAME = "demo"
INTERVALS = 24
SHIFT = 12
"""Intervals after which the traffic changes."""

METRICS = (
    *("trimtab_deployment_switched_by", "trimtab_placement_generation"),
    *("trimtab_applied_moves_total", "trimtab_live_imbalance_ratio"),
)


def main() -> None:
    """Run it, and say what happens."""
    print(
        f"vLLM {ENGINES['vllm']} balances {LAYERS} layers of {EXPERTS} experts in {SLOTS} slots on "
        f"{RANKS} ranks every {INTERVAL} steps.\nIts own code, with trimtab-vllm: rank 0 asks the "
        f"server. After interval {SHIFT} the traffic changes."
    )
    with (
        tempfile.TemporaryDirectory() as folder,
        _host(Path(folder)) as host,
        server_process() as server,
    ):
        sizes = f"--layers {LAYERS} --experts {EXPERTS} --slots {SLOTS} --gpus {RANKS}"
        when = f"--mode active --every-steps {INTERVAL} --window-steps {INTERVAL}"
        _say(server.address, f"create {NAME} --switched-by engine {sizes} {when}")
        _follow(host, server.address)
        _say(server.address, f"get {NAME}")
        print(f"\n$ curl http://{server.metrics_address}/metrics | grep {NAME}")
        with urllib.request.urlopen(f"http://{server.metrics_address}/metrics") as page:
            for line in page.read().decode().splitlines():
                if f'"{NAME}"' in line and line.startswith(METRICS):
                    print(line)


def _say(address: str, words: str) -> None:
    """Print a command, and what it prints."""
    print(f"\n$ trimtab deployments {words}")
    trimtab(["deployments", *words.split(), "--server", address])


@contextmanager
def _host(folder: Path) -> Iterator[Host]:
    host = Host("vllm", folder)
    try:
        yield host
    finally:
        host.close()


def _follow(host: Host, address: str) -> None:
    ranks = host.start({"use_async": False, "models": 1}, TARGET=address, DEPLOYMENT=NAME)
    print("\ninterval  imbalance  layers with moves  wrong weights")
    before = np.array(ranks.run(0)["maps"])
    for interval in range(1, INTERVALS + 1):
        seen = ranks.run(INTERVAL, every=SHIFT)
        now = np.array(seen["maps"])
        imbalance = imbalance_of(seen["processed"].reshape(LAYERS, RANKS, -1).sum(2)).mean()
        moved = int((now != before).any(axis=2).sum())
        before = now
        print(f"{interval:8}  {imbalance:9.3f}  {moved:17}  {seen['wrong']:13}")


if __name__ == "__main__":
    assert (FOLDER / ".ready").exists(), "the engine's code is not here: make demo-vllm"
    main()
