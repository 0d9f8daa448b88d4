"""What both clients hold beside their channel."""

from __future__ import annotations

from trimtab_client.exceptions import ClientClosedError
from trimtab_client.retry import RetryPolicy, check_timeout


class ClientBase:
    """Defaults of the calls, and whether the client is still open."""

    def __init__(self, timeout: float, retry: RetryPolicy) -> None:
        self._timeout = check_timeout(timeout)
        self._retry = retry
        self._closed = False

    def _timeout_of(self, timeout: float | None) -> float:
        """The timeout of a call that asked for `timeout`, in seconds."""
        return self._timeout if timeout is None else check_timeout(timeout)

    def _require_open(self) -> None:
        if self._closed:
            raise ClientClosedError("the client is closed: make another one")
