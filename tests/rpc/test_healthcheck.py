"""The command's health check, against endpoints of every kind of configuration."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from tests.rpc.endpoint import PKI, TLS, endpoint_of
from tests.servers import make_config
from trimtab_server.rpc.healthcheck import health_complaint


async def complaint(address: str, **settings: Any) -> str | None:
    config = make_config(**{**settings, "listen": address}).rpc
    return await asyncio.to_thread(health_complaint, config)


@pytest.mark.parametrize("listen", ["127.0.0.1:0", "0.0.0.0:0", "[::]:0", "localhost:0"])
async def test_a_server_that_serves_is_healthy_wherever_it_listens(listen: str) -> None:
    async with endpoint_of(listen=listen) as endpoint:
        assert await complaint(endpoint.address) is None


async def test_a_server_on_a_unix_socket_is_healthy(tmp_path: Path) -> None:
    async with endpoint_of(listen=f"unix:{tmp_path}/socket") as endpoint:
        assert await complaint(endpoint.address) is None


async def test_a_server_that_warms_up_or_drains_is_not_healthy() -> None:
    async with endpoint_of(opened=False) as endpoint:
        assert "NOT_SERVING" in str(await complaint(endpoint.address))
        await endpoint.server.open()
        assert await complaint(endpoint.address) is None
        await endpoint.server.drain()
        assert "NOT_SERVING" in str(await complaint(endpoint.address))


async def test_a_server_that_is_gone_is_not_healthy() -> None:
    async with endpoint_of() as endpoint:
        pass
    assert endpoint.address in str(await complaint(endpoint.address))


@pytest.mark.parametrize("client_ca", [False, True])
async def test_a_server_with_tls_is_healthy(client_ca: bool) -> None:
    tls = {**TLS, "tls_client_ca": str(PKI / "ca.pem")} if client_ca else TLS
    async with endpoint_of(**tls) as endpoint:
        assert await complaint(endpoint.address, **tls) is None
        assert await complaint(endpoint.address) is not None


async def test_a_server_with_another_certificate_is_not_healthy() -> None:
    other = {"tls_cert": str(PKI / "client.pem"), "tls_key": str(PKI / "client.key")}
    async with endpoint_of(**TLS) as endpoint:
        assert "verify failed" in str(await complaint(endpoint.address, **other))
