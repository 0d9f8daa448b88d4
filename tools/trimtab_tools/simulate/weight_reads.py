"""Ranks read each other's weights over sockets, so that a pull really moves bytes."""

from __future__ import annotations

import struct
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from multiprocessing.connection import Client, Connection, Listener
from typing import Any

import numpy as np

from trimtab_tools.conformance.adapter import FloatArray

_REQUEST = struct.Struct("<2I")
"""Layer and slot."""
_BACKLOG = 128
_TIMEOUT_S = 30.0

Read = Callable[[int, int], FloatArray]


class WeightServer:
    """Serves reads of this rank's live weights, each connection on a thread of its own.

    It creates a socket at the path `address`; `read` returns the weights of a layer and slot.
    """

    def __init__(self, address: str, read: Read) -> None:
        self._read = read
        self._listener = Listener(address, "AF_UNIX", backlog=_BACKLOG)
        threading.Thread(target=self._accept, name="weight reads", daemon=True).start()

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
                layer, slot = _REQUEST.unpack(pipe.recv_bytes())
                pipe.send_bytes(self._read(layer, slot).tobytes())


class WeightReader:
    """Reads the weights of other ranks, float32 [H, H] with H = `hidden`, on any thread."""

    def __init__(self, hidden: int) -> None:
        self._hidden = hidden
        self._addresses: Sequence[str] = ()
        self._lock = threading.Lock()
        self._idle: dict[str, Connection[Any, Any]] = {}

    def regroup(self, addresses: Sequence[str]) -> None:
        """Use these addresses of the ranks from now on."""
        self._addresses = addresses
        with self._lock:
            for gone in self._idle.keys() - set(addresses):
                self._idle.pop(gone).close()

    def read(self, rank: int, layer: int, slot: int) -> FloatArray:
        """The weights in force in a slot of a rank, float32 [H, H].

        Raises:
            OSError: the rank's process has ended, or does not answer.
        """
        address = self._addresses[rank]
        with self._lock:
            pipe = self._idle.pop(address, None) or Client(address, "AF_UNIX")
        try:
            pipe.send_bytes(_REQUEST.pack(layer, slot))
            if not pipe.poll(_TIMEOUT_S):
                raise TimeoutError(f"rank {rank} has not sent weights in {_TIMEOUT_S:g} s")
            data = pipe.recv_bytes()
        except EOFError as error:
            pipe.close()
            raise ConnectionError(f"rank {rank} ended while its weights were read") from error
        except OSError:
            pipe.close()
            raise
        with self._lock:
            other, self._idle[address] = self._idle.get(address), pipe
        if other is not None:
            other.close()
        return np.frombuffer(data, np.float32).reshape(self._hidden, self._hidden)
