"""The client for the server that the command line names."""

from __future__ import annotations

import argparse

from trimtab_client.channel import TlsOptions
from trimtab_client.client import Client
from trimtab_client.exceptions import InvalidArgumentError
from trimtab_tools.cli.errors import UsageError


def connect(arguments: argparse.Namespace) -> Client:
    """Make a client for the server that the options name."""
    names = ("ca", "cert", "key", "server_name")
    given = {name: getattr(arguments, f"tls_{name}") for name in names}
    wanted = arguments.tls or any(value is not None for value in given.values())
    try:
        tls = TlsOptions(**given) if wanted else None
        return Client(arguments.server, tls=tls, timeout=arguments.timeout)
    except InvalidArgumentError as error:
        raise UsageError(str(error)) from error
