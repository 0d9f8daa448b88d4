from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from tests.client.service import RunningService, serving
from trimtab_client import InvalidArgumentError, ServingStatus, TlsOptions, UnavailableError

FILES = Path(__file__).parent / "tls"
CA, CERT, KEY = FILES / "ca.pem", FILES / "client.pem", FILES / "client.key"
NAME = "trimtab.test"
Connect = Callable[..., Any]


@pytest.fixture(params=[False, True], ids=["tls", "mutual"])
def mutual(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@pytest.fixture
def secure(mutual: bool) -> Iterator[RunningService]:
    pair = ((FILES / "server.key").read_bytes(), (FILES / "server.pem").read_bytes())
    credentials = grpc.ssl_server_credentials([pair], CA.read_bytes(), mutual)
    with serving(credentials=credentials) as running:
        yield running


@pytest.mark.parametrize("read", [Path, str, Path.read_bytes], ids=["path", "str", "bytes"])
def test_a_trusted_server_is_reached(
    secure: RunningService, connect: Connect, read: Callable[[Path], Any]
) -> None:
    tls = TlsOptions(ca=read(CA), cert=read(CERT), key=read(KEY), server_name=NAME)

    assert connect(secure.target, tls=tls).health() is ServingStatus.SERVING


def test_only_a_mutual_server_asks_for_a_certificate(
    secure: RunningService, connect: Connect, mutual: bool
) -> None:
    client = connect(secure.target, tls=TlsOptions(ca=CA, server_name=NAME))

    if mutual:
        with pytest.raises(UnavailableError):
            client.health()
    else:
        assert client.health() is ServingStatus.SERVING


@pytest.mark.parametrize(
    "tls",
    [TlsOptions(ca=CA, cert=CERT, key=KEY), TlsOptions(cert=CERT, key=KEY, server_name=NAME), None],
    ids=["wrong name", "unknown authority", "plain"],
)
def test_an_untrusted_server_is_not_reached(
    secure: RunningService, connect: Connect, tls: TlsOptions | None
) -> None:
    with pytest.raises(UnavailableError):
        connect(secure.target, tls=tls).health()


@pytest.mark.parametrize("half", [{"cert": CERT}, {"key": KEY}])
def test_a_certificate_needs_its_key(half: dict[str, Path]) -> None:
    with pytest.raises(InvalidArgumentError, match="cert and key belong together"):
        TlsOptions(**half)
