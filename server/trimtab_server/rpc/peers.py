"""Who calls: for limits, and for people."""

from __future__ import annotations

import ipaddress
from typing import Any
from urllib.parse import unquote

_NAME = "x509_common_name"


def peer_name(context: Any) -> str:
    """The caller of a gRPC call: its address, and the name in its certificate if it has one."""
    names = context.auth_context().get(_NAME, ())
    shown = "".join(f" ({name.decode(errors='replace')})" for name in names)
    return f"{unquote(context.peer())}{shown}"


def peer_key(peer: str) -> str | None:
    """What tells peers apart: the host, or on this host the connection; None if nothing does.

    All programs of this host have the same address, and those on a Unix socket have none.
    """
    kind, _, address = unquote(peer).partition(":")
    if kind not in ("ipv4", "ipv6"):
        return None
    host = address.rpartition(":")[0].strip("[]")
    return address if ipaddress.ip_address(host).is_loopback else host
