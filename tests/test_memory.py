"""Memory that a flood has freed goes back to the system."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest

from tests.servers import make_config
from trimtab_server import memory
from trimtab_server.app import App

_FREES_MOST = """
import ctypes
from trimtab_server.memory import trimmer

def resident():
    lines = open("/proc/self/status").read().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) / 1024

libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
libc.free.argtypes, libc.memset.argtypes = [ctypes.c_void_p], [
    ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t]
blocks = [libc.malloc(16 << 10) for _ in range(8192)]
for block in blocks:
    libc.memset(block, 1, 16 << 10)
# What is kept lies all over the heap, as long-lived objects do after a flood.
for index, block in enumerate(blocks):
    if index % 64:
        libc.free(block)
before = resident()
trimmer()()
print(before - resident())
"""


@pytest.mark.process
@pytest.mark.skipif(memory.trimmer() is None, reason="this C library cannot give memory back")
def test_freed_memory_goes_back_although_some_of_its_neighbours_stay() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _FREES_MOST],
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        check=True,
    )
    # Of 128 MiB that were written, 126 are free.
    assert float(done.stdout) > 100


async def test_a_running_server_gives_memory_back_and_its_end_ends_that(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    given_back = asyncio.Event()
    loop = asyncio.get_running_loop()

    def trim() -> None:
        loop.call_soon_threadsafe(given_back.set)

    monkeypatch.setattr(memory, "_INTERVAL_S", 0.001)
    monkeypatch.setattr(memory, "trimmer", lambda: trim)
    before = asyncio.all_tasks()
    async with App(make_config()):
        async with asyncio.timeout(60):
            await given_back.wait()
    assert asyncio.all_tasks() == before
