"""Streams the placements of a deployment to one reader, as they come into force."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import NoReturn

from trimtab_protocol.version import Version
from trimtab_server.domain.errors import NotFoundError
from trimtab_server.engine.deployment import Deployment
from trimtab_server.rollout.record import Served


async def placements(
    deployment: Deployment, known: Version | None, draining: Callable[[], Awaitable[NoReturn]]
) -> AsyncGenerator[Served]:
    """Yield the current placement, unless its version is `known`, and each new one.

    No queue is kept for a reader. A slow reader gets the placement that is current when it reads.
    `draining` waits for the server to drain, then raises UnavailableError.

    Raises:
        NotFoundError: the deployment has been deleted.
        UnavailableError: the server drains.
    """
    drained = asyncio.ensure_future(draining())
    try:
        while not deployment.is_deleted:
            record = deployment.durable
            if record.in_force is not None and record.in_force != known:
                known = record.in_force
                yield Served(*record.served)
            else:
                await _first(asyncio.ensure_future(deployment.changed()), drained)
        raise NotFoundError(f"deployment {deployment.name!r} has been deleted")
    finally:
        drained.cancel()


async def _first(changed: asyncio.Future[object], draining: asyncio.Future[NoReturn]) -> None:
    """Return at the next change. Raises UnavailableError if the server drains."""
    try:
        await asyncio.wait((changed, draining), return_when=asyncio.FIRST_COMPLETED)
        if draining.done():
            draining.result()
    finally:
        changed.cancel()
