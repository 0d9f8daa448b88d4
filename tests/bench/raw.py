"""The speed of gRPC alone: a stream of bytes in which each message is acknowledged.

`python -m tests.bench.raw` serves such streams, and prints its port.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from typing import Any

import grpc
import uvloop

METHOD = "/raw/Echo"


class _Handler(grpc.GenericRpcHandler):  # type: ignore[misc]
    def service(self, _: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
        return grpc.stream_stream_rpc_method_handler(self._acknowledge)

    async def _acknowledge(self, _: Any, context: Any) -> None:
        while (message := await context.read()) is not grpc.aio.EOF:
            await context.write(message[:16])


async def _serve() -> None:
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((_Handler(),))
    print(server.add_insecure_port("127.0.0.1:0"), flush=True)
    await server.start()
    await server.wait_for_termination()


@contextmanager
def raw_server() -> Iterator[str]:
    """The address of such a server, which runs in its own process."""
    command = [sys.executable, "-m", __name__]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield f"127.0.0.1:{process.stdout.readline().strip()}"
        finally:
            process.kill()


async def acknowledged(address: str, size: int, streams: int, seconds: float) -> float:
    """Messages of `size` bytes per second; each stream waits for an answer before the next one."""
    async with AsyncExitStack() as open_:
        calls = []
        for _ in range(streams):
            options = [("grpc.use_local_subchannel_pool", 1)]
            channel = grpc.aio.insecure_channel(address, options=options)
            await open_.enter_async_context(channel)
            calls.append(channel.stream_stream(METHOD)())
        message = bytes(size)
        for call in calls:
            await _exchange(call, message, 0.0)
        start = time.perf_counter()
        counts = await asyncio.gather(*(_exchange(call, message, seconds) for call in calls))
        return sum(counts) / (time.perf_counter() - start)


async def _exchange(call: Any, message: bytes, seconds: float) -> int:
    """Exchange messages for some seconds, at least one, and return how many."""
    end, count = time.perf_counter() + seconds, 0
    while count == 0 or time.perf_counter() < end:
        await call.write(message)
        await call.read()
        count += 1
    return count


if __name__ == "__main__":
    uvloop.run(_serve())
