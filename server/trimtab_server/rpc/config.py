"""Settings of the gRPC endpoint."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from trimtab_server.domain.errors import require
from trimtab_server.setting import between, host_and_port, setting

_MAX_MESSAGE_BYTES = (1 << 31) - 1
"""gRPC stores this limit as a signed 32-bit integer."""


def _listen_rule(address: str) -> str | None:
    if address.startswith("unix:") and address != "unix:":
        return None
    complaint = host_and_port(address)
    return complaint and f"{complaint}, or unix:path"


@dataclass(frozen=True)
class RpcConfig:
    """Settings of the network."""

    listen: str = setting(
        "127.0.0.1:50051",
        "Where gRPC listens: host:port, where port 0 lets the system choose, or unix:path.",
        unit="address",
        rule=_listen_rule,
    )
    tls_cert: Path | None = setting(
        None, "PEM certificate chain of the server. Turns TLS on.", unit="file"
    )
    tls_key: Path | None = setting(None, "PEM private key of the certificate.", unit="file")
    tls_client_ca: Path | None = setting(
        None, "PEM certificates of the authorities that clients must have theirs from.", unit="file"
    )
    max_message_bytes: int = setting(
        64 << 20,
        "Largest message taken or sent. A load of L layers and E experts takes 4 or 8 "
        "bytes for each of its L x E numbers.",
        unit="bytes",
        rule=between(1024, _MAX_MESSAGE_BYTES),
    )
    max_concurrent_rpcs: int = setting(
        256,
        "Solver calls carried out at once, and as many calls of engines that switch by "
        "themselves. A stream of loads is one call.",
        unit="calls",
        rule=between(1, 1 << 20),
    )
    max_operator_rpcs: int = setting(
        64,
        "Calls of operators carried out at once, such as those of trimtab deployments, and as many "
        "of trimtab trigger, which may wait.",
        unit="calls",
        rule=between(1, 1 << 20),
    )
    max_watches: int = setting(
        1024,
        "Watches of placements at a time, over all deployments.",
        unit="watches",
        rule=between(1, 1 << 20),
    )
    peer_share: float = setting(
        0.5,
        "Share of each limit of calls, sessions and watches that one peer may use, but at least "
        "one: a host, or on the server's own host a connection. 1: no such limit, as is needed "
        "where all clients come through one proxy.",
        unit="share",
        rule=between(0, 1),
    )
    idle_stream_seconds: float = setting(
        900.0,
        "Time after which a stream of loads ends if its client sends no load, or does not read "
        "the answers. A watch ends as well if its client does not read.",
        unit="seconds",
        rule=between(0.1, 86400),
    )
    drain_seconds: float = setting(
        30.0,
        "Most time to finish running calls in after the first SIGTERM or SIGINT; a "
        "second one ends it.",
        unit="seconds",
        rule=between(0, 24 * 3600),
    )
    reflection: bool = setting(
        True, "Let clients such as grpcurl ask for the service's description."
    )

    def __post_init__(self) -> None:
        both = (self.tls_cert is None) == (self.tls_key is None)
        require(both, "tls_key", "tls_cert and tls_key need each other")
        require(
            self.tls_client_ca is None or self.tls_cert is not None,
            "tls_client_ca",
            "needs tls_cert and tls_key",
        )
