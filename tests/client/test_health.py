from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

from tests.client.service import RunningService, health_status, serving
from trimtab_client import (
    DeadlineExceededError,
    ServingStatus,
    UnavailableError,
    UnimplementedError,
)

Connect = Callable[..., Any]


@pytest.mark.parametrize(
    ("said", "heard"),
    [
        ("SERVING", ServingStatus.SERVING),
        ("NOT_SERVING", ServingStatus.NOT_SERVING),
        ("UNKNOWN", ServingStatus.UNKNOWN),
        ("SERVICE_UNKNOWN", ServingStatus.SERVICE_UNKNOWN),
    ],
)
def test_health_is_what_the_server_says(
    service: RunningService, client: Any, said: str, heard: ServingStatus
) -> None:
    service.health.set("", health_status(said))
    service.health.set("some.Service", health_status("SERVING"))

    assert client.health() is heard
    assert client.health("some.Service") is ServingStatus.SERVING
    assert client.health("no.Service") is ServingStatus.SERVICE_UNKNOWN


def test_the_health_of_an_absent_server_is_an_error(connect: Connect) -> None:
    with pytest.raises(UnavailableError):
        connect("unix:/nowhere").health()


def test_waiting_ends_when_the_server_serves(service: RunningService, client: Any) -> None:
    service.health.set("", health_status("NOT_SERVING"))

    def open_when_asked() -> None:
        service.health.asked.acquire()
        service.health.set("", health_status("SERVING"))

    opening = threading.Thread(target=open_when_asked)
    opening.start()
    client.wait_ready(10.0)
    opening.join()

    assert client.health() is ServingStatus.SERVING


def test_wait_ready_waits_for_a_server_that_starts_later(connect: Connect, tmp_path: Any) -> None:
    target = f"unix:{tmp_path}/socket"
    client = connect(target)
    with pytest.raises(UnavailableError):
        client.health()

    with serving(target):
        client.wait_ready(20.0)


@pytest.mark.parametrize("service_name", ["", "no.Service"])
def test_waiting_ends_at_its_timeout(
    service: RunningService, connect: Connect, service_name: str
) -> None:
    service.health.set("", health_status("NOT_SERVING"))

    for target in (service.target, "unix:/nowhere"):
        with pytest.raises(DeadlineExceededError, match=r"not ready within 0\.05 s"):
            connect(target).wait_ready(0.05, service=service_name)


def test_wait_ready_fails_at_once_without_a_health_service(connect: Connect) -> None:
    with serving(with_health=False) as service, pytest.raises(UnimplementedError):
        connect(service.target).wait_ready()
