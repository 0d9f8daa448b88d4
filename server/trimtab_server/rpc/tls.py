"""Loads the TLS files of the endpoint, and checks each of them."""

from __future__ import annotations

import ssl
from pathlib import Path

import grpc

from trimtab_server.domain.errors import invalid
from trimtab_server.rpc.config import RpcConfig


def server_credentials(config: RpcConfig) -> grpc.ServerCredentials | None:
    """The server's credentials; None without TLS.

    The files are checked here because gRPC would only report that it cannot listen.

    Raises:
        InvalidArgumentError: a file cannot be read or used. The error names it.
    """
    cert, key, client_ca = config.tls_cert, config.tls_key, config.tls_client_ca
    if cert is None or key is None:
        return None
    pair = (_read("tls_key", key), _read("tls_cert", cert))
    authorities = None if client_ca is None else _read("tls_client_ca", client_ca)
    _check_certificates("tls_cert", cert)
    _check_key(cert, key)
    if client_ca is not None:
        _check_certificates("tls_client_ca", client_ca)
    return grpc.ssl_server_credentials(
        [pair], root_certificates=authorities, require_client_auth=client_ca is not None
    )


def _read(name: str, path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise invalid(name, f"cannot read {path}: {error.strerror}") from error


def _check_certificates(name: str, path: Path) -> None:
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_verify_locations(path)
    except ssl.SSLError as error:
        raise invalid(name, f"{path} has no certificates in PEM format: {error}") from error


def _check_key(cert: Path, key: Path) -> None:
    """Check the key of a certificate that is valid."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        # The empty password keeps OpenSSL from asking for one on the terminal.
        context.load_cert_chain(cert, key, password="")
    except ssl.SSLError as error:
        raise invalid("tls_key", f"{key} is not the PEM private key of {cert}: {error}") from error
