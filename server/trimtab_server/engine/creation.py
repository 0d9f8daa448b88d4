"""Whether a deployment may be created: who may, and whether there is room for another one."""

from __future__ import annotations

from trimtab_server.domain.errors import FailedPreconditionError, ResourceExhaustedError
from trimtab_server.engine.config import SessionConfig

_MAX_NAME_SHOWN = 200


def require_worker_may_create(config: SessionConfig, name: str) -> None:
    """Raise FailedPreconditionError if workers and engines may not create deployments."""
    if config.create_deployments == "operators":
        raise FailedPreconditionError(
            f"there is no deployment {shown(name)}, and only operators may create one (setting "
            "create_deployments: operators): run trimtab deployments create first"
        )


def require_operator_may_create(config: SessionConfig, name: str) -> None:
    """Raise FailedPreconditionError if operators may not create deployments."""
    if config.create_deployments == "workers":
        raise FailedPreconditionError(
            f"there is no deployment {shown(name)}, and only workers and engines may create one "
            "(setting create_deployments: workers): start its workers, or set it to anyone to use "
            "trimtab deployments create"
        )


def require_room(config: SessionConfig, name: str, existing: int) -> None:
    """Raise ResourceExhaustedError if there are as many deployments as there may be."""
    limit = config.max_deployments
    if existing >= limit:
        raise ResourceExhaustedError(
            f"there is no room for deployment {shown(name)}: {limit} deployments are the limit of "
            "this server (setting max_deployments): delete some (trimtab deployments delete "
            "--unused-for SECONDS), or raise it"
        )


def shown(name: str) -> str:
    """The name of a deployment as errors show it."""
    return repr(name[:_MAX_NAME_SHOWN])
