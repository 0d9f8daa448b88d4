"""One deployment: its workers' side, its operators' side and its automation. On the event loop."""

from __future__ import annotations

from collections.abc import Callable

from trimtab_server.domain.errors import AlreadyExistsError
from trimtab_server.engine.automation import Automation
from trimtab_server.engine.deployment_core import DeploymentCore
from trimtab_server.engine.deployment_spec import DeploymentSpec
from trimtab_server.engine.deployment_store import DeploymentStore
from trimtab_server.engine.events import DeploymentEvents
from trimtab_server.engine.operator_side import OperatorSide
from trimtab_server.engine.planner import Planner
from trimtab_server.engine.status import Status
from trimtab_server.engine.worker_side import WorkerSide
from trimtab_server.policy.decide import Decision
from trimtab_server.policy.policy import Policy
from trimtab_server.rollout.record import Record


class Deployment(DeploymentCore):
    """A deployment that its first worker or an operator created, or that the store had.

    Args:
        store, record, events, offer_seconds: see `DeploymentCore`.
        planner: makes plans; None if this server makes none.

    Attributes:
        automation: what it does by itself.
        workers: what its workers do.
        operators: what its operators do.
    """

    def __init__(
        self,
        store: DeploymentStore,
        record: Record,
        events: DeploymentEvents,
        offer_seconds: float,
        planner: Planner | None = None,
    ) -> None:
        super().__init__(store, record, events, offer_seconds)
        self.automation = Automation(self, planner)
        self.workers = WorkerSide(self, self.automation)
        self.operators = OperatorSide(self, self.automation)

    @property
    def status(self) -> Status:
        """The current status."""
        return self.automation.status

    @property
    def is_unused(self) -> bool:
        """Whether it has no session, and the store has nothing of it."""
        return not self.sessions and not self.store.has_definition

    def require_same(self, spec: DeploymentSpec, policy: Callable[[Policy], Policy]) -> None:
        """Raise AlreadyExistsError if creating the deployment like this would change it."""
        differences = self.spec.differences(spec.updated_from(self.spec))
        if not differences and policy(self.policy) != self.policy:
            differences = "its policy: update it instead"
        if differences:
            raise AlreadyExistsError(
                f"deployment {self.name!r} exists and differs in {differences}"
            )

    async def rebalance_once(self) -> Decision | None:
        """See `Automation.rebalance_once`."""
        return await self.automation.rebalance_once()
