"""TLS of the endpoint: the files, checked one by one, as gRPC's credentials."""

from __future__ import annotations

import ssl
from pathlib import Path

import grpc

from trimtab_server.domain.errors import invalid
from trimtab_server.rpc.config import RpcConfig


def server_credentials(config: RpcConfig) -> grpc.ServerCredentials | None:
    """The server's credentials; None without TLS.

    gRPC would say of any bad file only that it cannot listen.

    Raises:
        InvalidArgumentError: names the file that cannot be read or used.
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
        raise invalid(name, f"{path} holds no certificates in PEM: {error}") from error


def _check_key(cert: Path, key: Path) -> None:
    """The certificate is known to be one, so what fails is the key."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        # With a password given, no encrypted key makes OpenSSL ask the terminal for one.
        context.load_cert_chain(cert, key, password="")
    except ssl.SSLError as error:
        raise invalid("tls_key", f"{key} is not the PEM private key of {cert}: {error}") from error
