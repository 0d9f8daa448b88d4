"""A session in a forked child: a process of its own, since gRPC's threads do not like it."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

PREPARE = """
import asyncio, os
from trimtab_client import *

COUNTS = [[1] * 4] * 2
OPTIONS = WorkerOptions(
    deployment="model", worker="w0", topology=Topology(6, 2), scope="local", bytes_per_expert=1,
    placement=Placement.untouched(2, 4, 6, 2),
)
TARGET, CALLBACKS = "localhost:1", {"on_offer": lambda _: None, "on_abort": lambda _: None}

def refused(session, boundary):
    said = []
    for call in (lambda: session.record(COUNTS, 0, 0), boundary, session.applied):
        try:
            call()
        except ClientClosedError as error:
            said.append("does not survive a fork" in str(error))
    return said == [True] * 3

def child_exits_with(work):
    child = os.fork()
    if child == 0:
        try:
            code = 7 if work() else 1
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
"""
SYNC = """
with WorkerSession(TARGET, OPTIONS, **CALLBACKS) as session:
    boundary = lambda: session.at_step_boundary(0)
    print(child_exits_with(lambda: refused(session, boundary)))
    session.record(COUNTS, 0, 0)
    assert session.at_step_boundary(0) is None
"""
ASYNC = """
async def main():
    async with AsyncWorkerSession(TARGET, OPTIONS, **CALLBACKS) as session:
        boundary = lambda: session.at_step_boundary(0).send(None)
        print(child_exits_with(lambda: refused(session, boundary)))
        session.record(COUNTS, 0, 0)
        assert await session.at_step_boundary(0) is None

asyncio.run(main())
"""


@pytest.mark.process
@pytest.mark.parametrize("script", [SYNC, ASYNC], ids=["sync", "async"])
def test_a_forked_session_raises_and_its_parent_continues(script: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PREPARE + script],
        # The child ends before it gets to gRPC, whose handlers would only wait for its threads.
        env={**os.environ, "GRPC_ENABLE_FORK_SUPPORT": "0"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "7\n"), done.stderr
