"""The options of the connection to the server."""

from __future__ import annotations

import argparse

from trimtab_client.channel import TlsOptions
from trimtab_client.client import Client
from trimtab_client.exceptions import InvalidArgumentError
from trimtab_tools.cli.errors import UsageError

_TLS_OPTIONS = ("tls", "tls_ca", "tls_cert", "tls_key", "tls_server_name")


def add_server_options(
    parser: argparse.ArgumentParser, server: str, timeout: float
) -> argparse._ArgumentGroup:
    """Add the options; returns their group, to which a command may add its own."""
    group = parser.add_argument_group("server")
    group.add_argument(
        "--server",
        metavar="ADDRESS",
        default=server,
        help="host:port or unix:path (default: %(default)s)",
    )
    group.add_argument(
        "--timeout",
        metavar="SECONDS",
        type=float,
        default=timeout,
        help="longest wait for an answer (default: %(default)g)",
    )
    group.add_argument("--tls", action="store_true", help="use TLS, trusting the system's CAs")
    group.add_argument("--tls-ca", metavar="FILE", help="use TLS, trusting the CAs in this PEM")
    group.add_argument("--tls-cert", metavar="FILE", help="use TLS, with this PEM certificate")
    group.add_argument("--tls-key", metavar="FILE", help="PEM private key of --tls-cert")
    group.add_argument(
        "--tls-server-name",
        metavar="NAME",
        help="use TLS, and expect this name in the server's certificate",
    )
    return group


def connect(arguments: argparse.Namespace) -> Client:
    """Make a client for the server that the options name."""
    try:
        return Client(arguments.server, tls=_tls(arguments), timeout=arguments.timeout)
    except InvalidArgumentError as error:
        raise UsageError(str(error)) from error


def _tls(arguments: argparse.Namespace) -> TlsOptions | None:
    if all(getattr(arguments, name) in (None, False) for name in _TLS_OPTIONS):
        return None
    return TlsOptions(
        ca=arguments.tls_ca,
        cert=arguments.tls_cert,
        key=arguments.tls_key,
        server_name=arguments.tls_server_name,
    )
