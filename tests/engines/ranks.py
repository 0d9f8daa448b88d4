"""Ranks of an engine as forked processes, driven by lines of JSON. Runs in the engine's Python.

The process that imports the engine, which takes long, starts one group after another:

    {"start": {...}, "environ": {...}, "log": "FILE"}    a new group; the ranks before it end
    {"steps": 32}, or any other                          is passed on to all ranks

The answer to each line is a line with the list of what the ranks have answered.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import socket
import sys
from collections.abc import Callable
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any

MakeRank = Callable[[int, int, dict[str, Any]], Any]
"""Makes a rank of its number, the port at which ranks meet, and the options of its group."""


def serve(ranks: int, make_rank: MakeRank) -> None:
    """Read and answer lines until standard input ends."""
    group = _Group([], [])
    try:
        for line in sys.stdin:
            command = json.loads(line)
            if "start" in command:
                group.end()
                group = _start(ranks, make_rank, command)
            else:
                for pipe in group.pipes:
                    pipe.send(command)
            print(json.dumps([pipe.recv() for pipe in group.pipes]), flush=True)
    except (EOFError, BrokenPipeError):
        sys.exit("a rank has died")
    finally:
        group.end()


class _Group:
    def __init__(self, pipes: list[Connection], processes: list[BaseProcess]) -> None:
        self.pipes = pipes
        self._processes = processes

    def end(self) -> None:
        """Kill the ranks: their threads wait for the next rebalance for ever."""
        for process in self._processes:
            process.kill()
            process.join()


def _start(ranks: int, make_rank: MakeRank, command: dict[str, Any]) -> _Group:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = multiprocessing.get_context("fork")
    pipes, processes = [], []
    for rank in range(ranks):
        ours, theirs = context.Pipe()
        arguments = (make_rank, rank, port, theirs, command)
        process = context.Process(target=_serve_rank, args=arguments, daemon=True)
        process.start()
        theirs.close()
        pipes.append(ours)
        processes.append(process)
    return _Group(pipes, processes)


def _serve_rank(
    make_rank: MakeRank, rank: int, port: int, pipe: Connection, command: dict[str, Any]
) -> None:
    """The main function of a rank's process."""
    log = os.open(command["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, sys.stderr.fileno())
    os.environ.update(command["environ"])
    engine = make_rank(rank, port, command["start"])
    pipe.send({})
    while True:
        pipe.send(engine.run(pipe.recv()))
