"""`trimtab status`: shows whether the server is ready."""

from __future__ import annotations

import argparse
import json
import sys
import time
from typing import Any, NamedTuple

from trimtab_client.client import Client
from trimtab_client.health import SOLVER_SERVICE
from trimtab_client.wire import ServingStatus
from trimtab_tools.cli.command import add_command
from trimtab_tools.cli.connection import add_server_options, connect
from trimtab_tools.cli.tables import table

_TIMEOUT_SECONDS = 5.0

_EPILOG = """\
examples:
  trimtab status
  trimtab status --server trimtab.example.com:50051 --json
  until trimtab status >/dev/null 2>&1; do sleep 1; done

The exit code is 0 only if the server and its services are SERVING.
"""


class Health(NamedTuple):
    """The health of a service, or of the server itself (""), and the latency of the answer."""

    service: str
    status: ServingStatus
    seconds: float


def add_to(commands: Any, server: str) -> argparse.ArgumentParser:
    """Add the command."""
    about = "Show the health of a server and of its services."
    parser = add_command(commands, "status", about, _EPILOG)
    add_server_options(parser, server, _TIMEOUT_SECONDS)
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    return parser


def run(arguments: argparse.Namespace) -> int:
    """Print the health; returns 0 if everything is SERVING, else 1."""
    with connect(arguments) as client:
        client.health()  # Connects, which shall not count as latency.
        healths = [_ask(client, service) for service in ("", SOLVER_SERVICE)]
    show = _as_json if arguments.json else _as_table
    sys.stdout.write(show(arguments.server, healths))
    return 0 if all(health.status is ServingStatus.SERVING for health in healths) else 1


def _ask(client: Client, service: str) -> Health:
    start = time.perf_counter()
    status = client.health(service)
    return Health(service, status, time.perf_counter() - start)


def _as_table(server: str, healths: list[Health]) -> str:
    rows = [
        [health.service or server, health.status.value, f"{health.seconds * 1e3:.1f} ms"]
        for health in healths
    ]
    return table(["", "health", "latency"], rows)


def _as_json(server: str, healths: list[Health]) -> str:
    services = [
        {"service": h.service, "status": h.status.value, "latency_seconds": h.seconds}
        for h in healths
    ]
    serving = all(health.status is ServingStatus.SERVING for health in healths)
    return json.dumps({"server": server, "serving": serving, "services": services}, indent=2) + "\n"
