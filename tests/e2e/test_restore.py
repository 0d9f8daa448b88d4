"""A real server whose store is put back to an earlier state, under workers that have gone on."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from tests.client.deployed import FIRST, SECOND, TOPOLOGY, Worker, accepted
from tests.client.worker.server import WAIT
from tests.e2e.test_store_failure import until
from tests.servers import server_process
from trimtab_client import Client, DeploymentSpec, Policy
from trimtab_protocol.version import Version
from trimtab_server.cli import main

pytestmark = [pytest.mark.process, pytest.mark.slow]


def switched(client: Client, worker: Worker, generation: int) -> None:
    """Switch a deployment to the placement that it does not have."""
    target = (FIRST, SECOND)[generation % 2]
    accepted(client, worker.deployment, placement=target)
    worker.flip()
    wanted = Version(1, generation)
    until(lambda: client.get_deployment(worker.deployment).status.in_force == wanted)


def test_a_store_that_is_restored_is_the_one_of_the_backup_and_workers_are_not_misled(
    tmp_path: Path,
) -> None:
    store, copy = ("--store", str(tmp_path / "trimtab.db")), str(tmp_path / "copy.db")
    with server_process(*store) as server, Client(server.address) as client:
        moved, steady = Worker(server, "moved"), Worker(server, "steady")
        for worker in (moved, steady):
            switched(client, worker, 1)
        client.create_deployment(DeploymentSpec("pinned", 3, 4, TOPOLOGY), Policy(max_moves=5))
        client.pin("pinned", SECOND)
        assert main(["backup", *store, copy]) == 0
        for generation in (2, 3):
            switched(client, moved, generation)
        client.update_policy("pinned", Policy(max_moves=9))
        client.unpin("pinned")
        assert main(["restore", *store, "--replace", copy]) == 1, "the server runs"
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(6 * WAIT) == 0
    assert main(["restore", *store, "--replace", copy]) == 0

    again = server_process(*store, "--listen", server.address)
    with again as server, Client(server.address) as client:
        client.wait_ready(6 * WAIT)
        until(lambda: client.server_status().sessions == 2)
        pinned = client.get_deployment("pinned")
        assert (pinned.policy.max_moves, pinned.status.pinned_digest) == (5, SECOND.digest)
        switched(client, steady, 2)

        status = client.get_deployment("moved").status
        assert status.in_force == Version(1, 1)
        assert status.paused_reason is not None
        assert status.paused_reason.startswith("'w0' serves with 1.3, ")
        assert status.paused_reason.endswith("since the store is an old copy")
        assert moved.session.placement == SECOND, "it serves on"
        client.resume("moved")
        not_ready = client.get_deployment("moved").status.not_ready
        assert not_ready is not None
        assert "its engine has to form a new group" in not_ready

        # What the engine has to do. No number is used again.
        moved.session.regroup("another group", SECOND)
        until(lambda: client.get_deployment("moved").status.in_force == Version(2, 0))
        accepted(client, "moved", placement=FIRST)
        moved.flip()
        until(lambda: client.get_deployment("moved").status.in_force == Version(2, 4))
        for worker in (moved, steady):
            worker.session.close(timeout=0.1)
