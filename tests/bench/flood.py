"""What floods of sessions leave in a server's memory."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import AsyncExitStack

import grpc

from tests.bench.options import LimitError, Options
from tests.bench.sessions import resident_bytes
from tests.bench.tables import print_table
from tests.rpc.peers import hello, joined
from tests.servers import ServerProcess, server_process
from trimtab_client import AsyncClient

SESSIONS, FLOODS, CONNECTIONS, AT_ONCE = 5000, 4, 100, 500
MAX_GROWTH_MB = 10.0
"""What a flood may add to what the first one has left."""

SETTLE_S = 15.0
"""The server gives freed memory back each ten seconds."""

CAPTION = (
    f"Each session is the first worker of a deployment of its own, whose group never becomes "
    f"complete, over {CONNECTIONS} connections; then all are cancelled. Resident memory of the "
    f"server once no session is left, and {SETTLE_S:.0f} s later; at most {MAX_GROWTH_MB:.0f} MB "
    "more after a flood than after the first passes. Settings that bound what is left: "
    "max_sessions, max_deployments and max_deployment_series."
)


def run(options: Options) -> None:
    """Print the memory after each flood; raises LimitError if later ones added too much."""
    sessions, floods = (100, 2) if options.quick else (SESSIONS, FLOODS)
    limits = ("--max-sessions", str(2 * sessions), "--max-deployments", str(2 * sessions))
    left: list[float] = []

    def rows(server: ServerProcess) -> Iterator[list[object]]:
        yield ["none", "", "", f"{_megabytes(server):.0f}"]
        for number in range(1, floods + 1):
            full, empty, settled = asyncio.run(_flood(server, sessions, options.quick))
            left.append(settled)
            yield [number, f"{full:.0f}", f"{empty:.0f}", f"{settled:.0f}"]

    # Else the first sessions would be over before the last ones have begun.
    limits += "--lease-seconds", "600", "--peer-share", "1"
    with server_process(*limits) as server:
        columns = ["flood", "MB with all sessions", "without", "settled"]
        print_table(f"Floods of {sessions} sessions", columns, rows(server), CAPTION)
    growth = max(left) - left[0]
    if growth > MAX_GROWTH_MB:
        raise LimitError(f"later floods added {growth:.1f} MB, above {MAX_GROWTH_MB:.0f}")


async def _flood(server: ServerProcess, sessions: int, quick: bool) -> tuple[float, float, float]:
    """Megabytes with all sessions, once they have ended, and after a while."""
    own = [("grpc.use_local_subchannel_pool", 1)]
    async with AsyncClient(server.address) as client, AsyncExitStack() as open_:
        channels = [
            await open_.enter_async_context(grpc.aio.insecure_channel(server.address, own))
            for _ in range(min(CONNECTIONS, sessions))
        ]
        peers = []
        for first in range(0, sessions, AT_ONCE):
            numbers = range(first, min(sessions, first + AT_ONCE))
            joining = (
                joined(channels[each % len(channels)], hello(0, 2, deployment=f"flood {each}"))
                for each in numbers
            )
            peers += await asyncio.gather(*joining)
        full = _megabytes(server)
        for peer in peers:
            peer.call.cancel()
        while (await client.server_status()).sessions:  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.1)
        empty = _megabytes(server)
        await asyncio.sleep(0.0 if quick else SETTLE_S)
        return full, empty, _megabytes(server)


def _megabytes(server: ServerProcess) -> float:
    return resident_bytes(server.process.pid) / 1e6
