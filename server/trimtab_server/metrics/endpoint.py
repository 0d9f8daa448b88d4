"""Serves metrics and health over HTTP from threads, so that they answer even under load."""

from __future__ import annotations

import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, make_server

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import ThreadingWSGIServer

from trimtab_server.domain.errors import invalid
from trimtab_server.metrics.pages import Readiness, pages

_CLOSES_WITHIN_S = 0.05
"""At most how long the end of a server waits for this endpoint, which looks that often."""

_REQUEST_S = 10.0
"""How long a connection may stay without a request. Each has a thread until it ends."""


class _SilentHandler(WSGIRequestHandler):
    timeout = _REQUEST_S

    def log_message(self, *_: object) -> None:
        """Log nothing: a scrape is no event."""

    def parse_request(self) -> bool:
        """Read the rest of a request. Its answer may take longer."""
        parsed = super().parse_request()
        self.connection.settimeout(None)
        return parsed


class _Server(ThreadingWSGIServer):
    def handle_error(self, request: Any, client_address: Any) -> None:
        """Print a traceback, but not where the client has gone, as after a probe of the port."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)


@contextmanager
def serve_metrics(listen: str, registry: CollectorRegistry, readiness: Readiness) -> Iterator[str]:
    """Serve `registry` and the server's health; yields the address, with the port in use.

    Args:
        listen: host:port.
        registry: of the metrics.
        readiness: returns why the server does not serve now, None if it does; called on other
            threads.

    Raises:
        InvalidArgumentError: the server cannot listen at the address.
    """
    host, _, port = listen.rpartition(":")
    try:
        found = socket.getaddrinfo(
            host.strip("[]"), int(port), type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        family, _, _, _, (address, *_) = found[0]

        class Server(_Server):
            address_family = family

        app = pages(registry, readiness)
        server = make_server(str(address), int(port), app, Server, _SilentHandler)
    except OSError as error:
        raise invalid("metrics_listen", f"cannot listen on {listen}: {error}") from error
    thread = threading.Thread(target=server.serve_forever, args=(_CLOSES_WITHIN_S,), daemon=True)
    thread.start()
    try:
        yield f"{host}:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
