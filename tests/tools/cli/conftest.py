from __future__ import annotations

from tests.client.conftest import often, service, worker

__all__ = ["often", "service", "worker"]
