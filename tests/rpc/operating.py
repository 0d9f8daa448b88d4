"""What an operator does and sees in a test, with the client and with the command."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

from tests.rpc.peers import Peer, carry_out
from tests.rpc.placements import EXPERTS, GPUS, LAYERS, SLOTS
from trimtab_client import AsyncClient, DeploymentSpec, Placement, RetryPolicy, Topology, Version
from trimtab_tools.cli import main

SPEC = DeploymentSpec("d", LAYERS, EXPERTS, Topology(SLOTS, GPUS), model="deepseek", first_layer=3)
SAID = {"model": "deepseek", "first_layer": 3}
"""What a worker's Hello says of `SPEC` beside its sizes."""

V10, V11, V12, V13 = (Version(1, generation) for generation in range(4))


def value(placement: Any) -> Placement:
    """A placement of the server as one of the client."""
    return Placement.of(placement.phy2log, EXPERTS, GPUS)


@asynccontextmanager
async def client_of(address: str) -> AsyncIterator[AsyncClient]:
    retry = RetryPolicy(initial_backoff=0.001, max_backoff=0.01)
    async with AsyncClient(address, retry=retry) as client:
        yield client


async def status(client: AsyncClient, name: str = "d") -> Any:
    return (await client.get_deployment(name)).status


async def once(ask: Callable[[], Awaitable[Any]], wanted: Callable[[Any], Any]) -> Any:
    """The first answer that is as wanted."""
    async with asyncio.timeout(20):
        while not wanted(answer := await ask()):  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.001)
        return answer


async def in_force(client: AsyncClient, wanted: Version) -> Any:
    """The deployment, once it serves by a version."""
    return await once(
        lambda: client.get_deployment("d"),
        lambda each: (each.status.in_force, each.status.phase) == (wanted, "idle"),
    )


async def switch(client: AsyncClient, peers: Sequence[Peer], placement: Any) -> Version:
    """Go to a placement, and return its version once it is in force, and that is durable."""
    await client.trigger("d", placement=value(placement))
    offered = await carry_out(peers)
    reached = Version(offered.epoch, offered.generation)
    await in_force(client, reached)
    # A status says so a moment earlier than placements can be read: those are what is durable.
    await once(lambda: client.get_placement("d"), lambda each: each.version == reached)
    return reached


async def run(address: str, *arguments: str) -> int:
    """The command, on a thread of its own; returns the exit code."""
    return await asyncio.to_thread(main, [*arguments, "--server", address])
