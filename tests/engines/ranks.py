"""Ranks of an engine as forked processes, driven by lines of JSON. Runs in the engine's Python."""

from __future__ import annotations

import json
import multiprocessing
import socket
import sys
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

ServeRank = Callable[[int, int, Connection, dict[str, Any]], None]


def serve(ranks: int, serve_rank: ServeRank, options: dict[str, Any]) -> None:
    """Start the ranks, and pass each line of standard input on to all of them.

    The answer is a line with the list of their answers.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = multiprocessing.get_context("fork")
    pipes, processes = [], []
    for rank in range(ranks):
        ours, theirs = context.Pipe()
        process = context.Process(target=serve_rank, args=(rank, port, theirs, options))
        process.start()
        theirs.close()
        pipes.append(ours)
        processes.append(process)
    try:
        _answer(pipes)
        for line in sys.stdin:
            for pipe in pipes:
                pipe.send(json.loads(line))
            _answer(pipes)
        for pipe in pipes:
            pipe.send(None)
    except (EOFError, BrokenPipeError):
        sys.exit("a rank has died")
    finally:
        for process in processes:
            process.kill()


def _answer(pipes: list[Connection]) -> None:
    print(json.dumps([pipe.recv() for pipe in pipes]), flush=True)
