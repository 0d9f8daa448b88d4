"""Ranks read each other's weights over sockets: what is pulled really moves."""

from __future__ import annotations

import struct
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from multiprocessing.connection import Client, Connection, Listener
from typing import Any

import numpy as np

from trimtab_tools.simulate.checkpoint import FloatArray

_ASKED = struct.Struct("<2I")
_BACKLOG = 128
_PATIENCE_S = 30.0

Read = Callable[[int, int], FloatArray]


class WeightServer:
    """Serves reads of this rank's live weights, each connection on a thread of its own.

    Args:
        address: a path, where nothing is yet.
        read: the weights in force of a layer and slot.
    """

    def __init__(self, address: str, read: Read) -> None:
        self._read = read
        self._listener = Listener(address, "AF_UNIX", backlog=_BACKLOG)
        threading.Thread(target=self._accept, name="peers", daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                pipe = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(pipe,), daemon=True).start()

    def _serve(self, pipe: Connection[Any, Any]) -> None:
        with suppress(EOFError, OSError), pipe:
            while True:
                layer, slot = _ASKED.unpack(pipe.recv_bytes())
                pipe.send_bytes(self._read(layer, slot).tobytes())


class WeightReader:
    """Reads the weights of other ranks. Any thread may use it.

    Args:
        hidden: H.
    """

    def __init__(self, hidden: int) -> None:
        self._hidden = hidden
        self._addresses: Sequence[str] = ()
        self._lock = threading.Lock()
        self._pipes: dict[str, Connection[Any, Any]] = {}

    def regroup(self, addresses: Sequence[str]) -> None:
        """Where the ranks are from now on."""
        self._addresses = addresses
        with self._lock:
            for gone in self._pipes.keys() - set(addresses):
                self._pipes.pop(gone).close()

    def read(self, rank: int, layer: int, slot: int) -> FloatArray:
        """The weights in force in a slot of a rank, float32 [H, H].

        Raises:
            OSError: the rank is gone, went meanwhile, or does not answer.
        """
        address = self._addresses[rank]
        with self._lock:
            pipe = self._pipes.pop(address, None) or Client(address, "AF_UNIX")
        try:
            pipe.send_bytes(_ASKED.pack(layer, slot))
            if not pipe.poll(_PATIENCE_S):
                raise TimeoutError(f"rank {rank} has not sent weights in {_PATIENCE_S:g} s")
            data = pipe.recv_bytes()
        except EOFError as error:
            pipe.close()
            raise ConnectionError(f"rank {rank} went while its weights were read") from error
        except OSError:
            pipe.close()
            raise
        with self._lock:
            other, self._pipes[address] = self._pipes.get(address), pipe
        if other is not None:
            other.close()
        return np.frombuffer(data, np.float32).reshape(self._hidden, self._hidden)
