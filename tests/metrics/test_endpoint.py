"""Clients of the metrics endpoint that go away, or say nothing."""

from __future__ import annotations

import contextlib
import socket
import struct
import time
from collections.abc import Iterator
from http.client import HTTPConnection

import pytest
from prometheus_client import CollectorRegistry

from trimtab_server.metrics import endpoint


@contextlib.contextmanager
def connected(address: str) -> Iterator[socket.socket]:
    host, _, port = address.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=60) as client:
        yield client


@pytest.mark.parametrize("said", [b"", b"GET /heal", b"GET /healthz HTTP/1.1\r\n"])
def test_a_client_that_resets_its_connection_leaves_no_traceback(
    said: bytes, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    ended: list[object] = []
    shut_down = endpoint._Server.shutdown_request

    def noted(server: endpoint._Server, request: object) -> None:
        shut_down(server, request)  # type: ignore[arg-type]
        ended.append(request)

    monkeypatch.setattr(endpoint._Server, "shutdown_request", noted)
    with endpoint.serve_metrics("127.0.0.1:0", CollectorRegistry(), lambda: None) as address:
        for _ in range(5):
            with connected(address) as client:
                client.sendall(said)
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        while len(ended) < 5:
            time.sleep(0.01)
        answer = HTTPConnection(address, timeout=60)
        answer.request("GET", "/healthz")
        assert answer.getresponse().read() == b"ok\n"
        answer.close()
    assert capfd.readouterr().err == ""


def test_a_connection_without_a_request_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoint._SilentHandler, "timeout", 0.1)
    with (
        endpoint.serve_metrics("127.0.0.1:0", CollectorRegistry(), lambda: None) as address,
        connected(address) as client,
    ):
        assert client.recv(1) == b""
