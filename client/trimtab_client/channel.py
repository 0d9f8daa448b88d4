"""The gRPC channel of both clients: security, limits, keepalive."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc

from trimtab_client.checks import integer
from trimtab_client.exceptions import invalid

DEFAULT_TARGET = "localhost:50051"
DEFAULT_TIMEOUT = 30.0
DEFAULT_MAX_MESSAGE_BYTES = 64 * 2**20
_MAX_MESSAGE_BYTES = 2**31 - 1  # gRPC counts in a C int

_OPTIONS = (
    # The client itself retries: it knows about RetryInfo and the timeout.
    ("grpc.enable_retries", 0),
    ("grpc.service_config_disable_resolution", 1),
    # gRPC's own reconnect backoff grows to two minutes. A server that is back should be found
    # within seconds.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 2_000),
    ("grpc.max_reconnect_backoff_ms", 2_000),
    # An idle stream to a host that vanished ends after this. By default, servers close
    # connections that ping more often than every 5 minutes.
    ("grpc.keepalive_time_ms", 310_000),
    ("grpc.keepalive_timeout_ms", 20_000),
)

Pem = str | os.PathLike[str] | bytes
"""The path of a file of PEM text, or the text itself as bytes."""


@dataclass(frozen=True)
class TlsOptions:
    """How to reach a server that speaks TLS.

    Attributes:
        ca: certificates to trust; None for those of the system.
        cert: this client's certificate chain, if the server asks for one.
        key: the private key of `cert`.
        server_name: name to expect in the server's certificate, if not that of the address.

    Raises:
        InvalidArgumentError: `cert` is given without `key`, or `key` without `cert`.
    """

    ca: Pem | None = None
    cert: Pem | None = None
    key: Pem | None = None
    server_name: str | None = None

    def __post_init__(self) -> None:
        if (self.cert is None) != (self.key is None):
            raise invalid("tls", "cert and key belong together: give both or none")


def open_channel(library: Any, target: str, tls: TlsOptions | None, max_message_bytes: int) -> Any:
    """A channel of `grpc` or `grpc.aio`. An OSError names a file of `tls` that cannot be read."""
    limit = integer(max_message_bytes, "max_message_bytes", 1, _MAX_MESSAGE_BYTES)
    options: list[tuple[str, int | str]] = [
        ("grpc.max_send_message_length", limit),
        ("grpc.max_receive_message_length", limit),
        *_OPTIONS,
    ]
    if tls is None:
        return library.insecure_channel(target, options)
    if tls.server_name is not None:
        options.append(("grpc.ssl_target_name_override", tls.server_name))
    credentials = grpc.ssl_channel_credentials(_pem(tls.ca), _pem(tls.key), _pem(tls.cert))
    return library.secure_channel(target, credentials, options)


def _pem(source: Pem | None) -> bytes | None:
    if source is None or isinstance(source, bytes):
        return source
    return Path(source).read_bytes()
