"""Checks the health of a server on this machine, by its configuration. Does not import torch."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from trimtab.v1 import solver_service_pb2
from trimtab.v1alpha1 import deployment_service_pb2, deployment_service_pb2_grpc
from trimtab_server.rpc.config import RpcConfig

_EVERY_ADDRESS = {"0.0.0.0": "127.0.0.1", "[::]": "[::1]"}  # noqa: S104
_TIMEOUT_S = 3.0
_SOLVER_SERVICE = solver_service_pb2.DESCRIPTOR.services_by_name["SolverService"].full_name


def health_complaint(config: RpcConfig, *, needs_store: bool = True) -> str | None:
    """Why the server with this configuration is not healthy; None if it is.

    Args:
        config: says where the server listens, and how.
        needs_store: whether it is unhealthy while its store fails.
    """
    target = _target(config.listen)
    try:
        with _channel(config, target) as channel:
            complaint = _complaint(channel, "" if needs_store else _SOLVER_SERVICE)
    except grpc.RpcError as error:
        complaint = error.details()
    except OSError as error:
        complaint = str(error)
    return None if complaint is None else f"{target}: {complaint}"


def _complaint(channel: grpc.Channel, service: str) -> str | None:
    request = health_pb2.HealthCheckRequest(service=service)
    answer = health_pb2_grpc.HealthStub(channel).Check(request, timeout=_TIMEOUT_S)
    if answer.status == health_pb2.HealthCheckResponse.SERVING:
        return None
    status = health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)
    failure = _store_failure(channel)
    return f"{status}: the store fails: {failure}" if failure else status


def _store_failure(channel: grpc.Channel) -> str:
    """Why the store fails; empty if it does not, or if the server does not tell."""
    ask = deployment_service_pb2_grpc.DeploymentServiceStub(channel).GetServerStatus
    try:
        answer = ask(deployment_service_pb2.GetServerStatusRequest(), timeout=_TIMEOUT_S)
    except grpc.RpcError:
        return ""
    return str(answer.store_failure)


def _target(listen: str) -> str:
    """The address to connect to: loopback if the server listens on every address."""
    host, colon, port = listen.rpartition(":")
    return f"{_EVERY_ADDRESS.get(host, host)}{colon}{port}"


def _channel(config: RpcConfig, target: str) -> grpc.Channel:
    cert, key = config.tls_cert, config.tls_key
    if cert is None or key is None:
        return grpc.insecure_channel(target)
    pem = cert.read_bytes()
    # Only the server's own certificate is trusted, under a name that it contains, because the
    # check is about this server and not about what clients trust. If the server asks clients
    # for a certificate, the check presents the same one.
    identity = (key.read_bytes(), pem) if config.tls_client_ca else (None, None)
    name = _name_in(_certificate(target, cert, key))
    return grpc.secure_channel(
        target,
        grpc.ssl_channel_credentials(pem, *identity),
        [("grpc.ssl_target_name_override", name)],
    )


def _certificate(target: str, cert: Path, key: Path) -> dict[str, Any]:
    """The server's certificate as Python's ssl parses it, taken from a handshake."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    context.load_verify_locations(cert)
    context.load_cert_chain(cert, key, password="")
    context.set_alpn_protocols(["h2"])  # gRPC closes connections that do not offer it
    with _connected(target) as plain, context.wrap_socket(plain) as secure:
        return dict(secure.getpeercert() or {})


def _connected(target: str) -> socket.socket:
    host, _, port = target.rpartition(":")
    if host != "unix":
        return socket.create_connection((host.strip("[]"), int(port)), _TIMEOUT_S)
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(_TIMEOUT_S)
    connection.connect(port)
    return connection


def _name_in(certificate: Mapping[str, Any]) -> str:
    """A name that the certificate is valid for. A wildcard is replaced by a label."""
    names = [name for _, name in certificate.get("subjectAltName", ())]
    subject = [value for part in certificate["subject"] for _, value in part]
    return str((names or subject)[0]).replace("*", "any")
