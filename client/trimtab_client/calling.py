"""How each client makes a call, and makes it again: the two differ only in how they wait."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import grpc

from trimtab_client.aio_status import close_is_an_error
from trimtab_client.base import ClientBase, require_turned_away
from trimtab_client.retry import Attempts, Deadline, grpc_timeout


class Calls(ClientBase):
    """Calls for threads."""

    def _call(
        self, method: Any, request: Any, timeout: float | None, *, repeatable: bool = True
    ) -> Any:
        deadline = Deadline(self._timeout_of(timeout))
        attempts = Attempts(self._retry, deadline)
        while True:
            self._require_open()
            try:
                return method(request, timeout=grpc_timeout(deadline.remaining()))
            except grpc.RpcError as failure:
                if not repeatable:
                    require_turned_away(failure)
                delay = attempts.delay_after(failure)
            time.sleep(delay)


class AioCalls(ClientBase):
    """Calls for asyncio."""

    async def _call(
        self, method: Any, request: Any, timeout: float | None, *, repeatable: bool = True
    ) -> Any:
        deadline = Deadline(self._timeout_of(timeout))
        attempts = Attempts(self._retry, deadline)
        while True:
            self._require_open()
            try:
                with close_is_an_error():
                    return await method(request, timeout=grpc_timeout(deadline.remaining()))
            except grpc.RpcError as failure:
                if not repeatable:
                    require_turned_away(failure)
                delay = attempts.delay_after(failure)
            await asyncio.sleep(delay)
