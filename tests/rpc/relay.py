"""A network that a test can cut."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Self


class Relay:
    """A network between a worker and a server, which a test can cut. A context manager.

    Attributes:
        address: where it listens.
    """

    address: str

    def __init__(self, server: str) -> None:
        self._server_at = server.rpartition(":")
        self._ends: list[asyncio.StreamWriter] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._left: int | None = None

    async def __aenter__(self) -> Self:
        self._listener = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        host, port = self._listener.sockets[0].getsockname()
        self.address = f"{host}:{port}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self.cut()
        await self._listener.wait_closed()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def cut(self) -> None:
        """Both sides lose the connection, without a word of HTTP/2."""
        self._listener.close()
        for end in self._ends:
            end.transport.abort()

    def cut_after(self, size: int) -> None:
        """The same once the worker has sent so many bytes more."""
        self._left = size

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        host, _, port = self._server_at
        from_server, to_server = await asyncio.open_connection(host, int(port))
        self._ends += [writer, to_server]
        pumps = self._pump(reader, to_server, up=True), self._pump(from_server, writer, up=False)
        self._tasks += [asyncio.ensure_future(pump) for pump in pumps]

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, up: bool
    ) -> None:
        with suppress(OSError):
            while data := await reader.read(1 << 16):
                if up and self._left is not None:
                    data, self._left = data[: self._left], self._left - len(data)
                writer.write(data)
                await writer.drain()
                if self._left is not None and self._left <= 0:
                    self.cut()
        writer.close()
