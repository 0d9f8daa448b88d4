"""`trimtab status`: shows whether the server is ready."""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass
from typing import Any

from trimtab_client.client import Client
from trimtab_client.deployments import ServerStatus
from trimtab_client.exceptions import UnimplementedError
from trimtab_client.health import SOLVER_SERVICE
from trimtab_client.wire import ServingStatus
from trimtab_tools.cli.command import add_command, add_server_options
from trimtab_tools.cli.connection import connect
from trimtab_tools.cli.json_output import show
from trimtab_tools.cli.tables import table

_TIMEOUT_SECONDS = 5.0

_EPILOG = """\
examples:
  trimtab status
  trimtab status --server trimtab.example.com:50051 --json
  until trimtab status >/dev/null 2>&1; do sleep 1; done

The exit code is 0 only if the server and its services are SERVING. While the store fails, the
server is not, but its solver is.
"""


@dataclass(frozen=True)
class Health:
    """The health of a service, or of the server itself (""), and the latency of the answer."""

    service: str
    status: ServingStatus
    latency_seconds: float


def add_to(commands: Any) -> None:
    """Add the command."""
    about = "Show the health of a server and of its services, and whether its store works."
    parser = add_command(commands, "status", run, about, _EPILOG)
    add_server_options(parser, _TIMEOUT_SECONDS)
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")


def run(arguments: argparse.Namespace) -> int:
    """Print the health; returns 0 if everything is SERVING, else 1."""
    server = arguments.server
    with connect(arguments) as client:
        client.health()  # Connects, which shall not count as latency.
        healths = [_ask(client, service) for service in ("", SOLVER_SERVICE)]
        status = _status_of(client)
    serving = all(health.status is ServingStatus.SERVING for health in healths)
    rows = [
        [health.service or server, health.status.value, f"{health.latency_seconds * 1e3:.1f} ms"]
        for health in healths
    ]
    text = table(["", "health", "latency"], rows)
    document = {"server": server, "serving": serving, "services": healths, "status": status}
    show(arguments, document, text if status is None else f"{text}\n{_server_text(status)}")
    return 0 if serving else 1


def _status_of(client: Client) -> ServerStatus | None:
    """The state of the server; None if it is too old to say."""
    try:
        return client.server_status()
    except UnimplementedError:
        return None


def _server_text(status: ServerStatus) -> str:
    store = "works" if status.store_failure is None else f"FAILS: {status.store_failure}"
    rows = [
        ["store", store],
        ["version", status.version],
        ["term", str(status.term)],
        ["up for", f"{status.uptime_seconds:.0f} s"],
        ["deployments", str(status.deployments)],
        ["sessions", str(status.sessions)],
    ]
    return table(["server", ""], rows, left=[""])


def _ask(client: Client, service: str) -> Health:
    start = time.perf_counter()
    status = client.health(service)
    return Health(service, status, time.perf_counter() - start)
