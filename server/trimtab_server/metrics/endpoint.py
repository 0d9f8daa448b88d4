"""Serves /metrics over HTTP from its own threads, so that it answers even under load."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import start_wsgi_server

from trimtab_server.domain.errors import invalid


@contextmanager
def serve_metrics(listen: str, registry: CollectorRegistry) -> Iterator[str]:
    """Serve `registry` at `listen` (host:port); yields the address, with the port in use.

    Raises:
        InvalidArgumentError: the server cannot listen at the address.
    """
    host, _, port = listen.rpartition(":")
    try:
        server, thread = start_wsgi_server(int(port), host.strip("[]"), registry)
    except OSError as error:
        raise invalid("metrics_listen", f"cannot listen on {listen}: {error}") from error
    try:
        yield f"{host}:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
