"""Sessions over TLS."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import grpc
import pytest

from tests.client.test_tls import CA, CERT, FILES, KEY, NAME
from tests.client.worker.engine import Start
from tests.client.worker.server import RunningSessions, serving_sessions
from trimtab_client import TlsOptions


@pytest.fixture
def server() -> Iterator[RunningSessions]:
    """A server that wants a certificate of its workers."""
    pair = ((FILES / "server.key").read_bytes(), (FILES / "server.pem").read_bytes())
    with serving_sessions(
        grpc.ssl_server_credentials([pair], CA.read_bytes(), require_client_auth=True)
    ) as running:
        yield running


def test_a_session_speaks_tls_and_connects_again(server: RunningSessions, start: Start) -> None:
    engine = start(tls=TlsOptions(ca=CA, cert=CERT, key=KEY, server_name=NAME))
    server.joined().end()
    assert engine.event("in_force")["version"] == (1, 0)

    stream = server.next_stream()
    assert stream.hello.stream == 2
    stream.fence()
    engine.close(timeout=0.1)


@pytest.mark.parametrize(
    "tls",
    [
        TlsOptions(ca=CA, cert=CERT, key=KEY),
        TlsOptions(cert=CERT, key=KEY, server_name=NAME),
        TlsOptions(ca=CA, server_name=NAME),
        None,
    ],
    ids=["wrong name", "unknown authority", "no certificate", "plain"],
)
def test_without_a_trusted_server_the_engine_serves_on(
    server: RunningSessions, start: Start, tls: Any
) -> None:
    engine = start(tls=tls)

    assert engine.event("disconnected")["reason"].startswith("UNAVAILABLE")
    assert not engine.session.connected
    assert engine.boundary() is None
