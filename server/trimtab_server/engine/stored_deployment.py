"""A deployment's spec and policy, as the store keeps them."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

from trimtab_server.domain.topology import Topology
from trimtab_server.engine.deployment_spec import DeploymentSpec
from trimtab_server.policy.policy import FORMER_SETTINGS, Mode, Policy
from trimtab_server.store.errors import StoreCorruptError


@dataclass(frozen=True)
class StoredDeployment:
    """A deployment's spec, from its first worker or an operator, and its policy.

    Attributes:
        by_operator: whether an operator created it, or it is unknown who did.
        used_until: until when it counts as used, in seconds on the wall clock: see `UsagePeriods`.
            None if that is unknown.
    """

    spec: DeploymentSpec
    policy: Policy
    by_operator: bool = True
    used_until: float | None = None

    def encode(self) -> str:
        """This as JSON, which later versions can read too."""
        # The store's format calls the spec "facts".
        values: dict[str, Any] = {"facts": asdict(self.spec), "policy": asdict(self.policy)}
        values["policy"]["mode"] = self.policy.mode.value
        values |= {"by_operator": self.by_operator, "used_until": self.used_until}
        return json.dumps(values)

    @classmethod
    def decode(cls, text: str) -> StoredDeployment:
        """Reads what `encode` wrote. Fields that `text` does not have get their defaults.

        Raises:
            StoreCorruptError: `text` is no stored deployment.
        """
        try:
            values = json.loads(text)
            spec, policy = values["facts"], values["policy"]
            topology, mode = Topology(**spec["topology"]), Mode(policy["mode"])
            kept = _migrated(policy)
            used_until = values.get("used_until")
            return cls(
                DeploymentSpec(**{**spec, "topology": topology}),
                Policy(**{**kept, "mode": mode}),
                bool(values.get("by_operator", True)),
                None if used_until is None else float(used_until),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise StoreCorruptError(f"a spec cannot be read: {error!r}") from error


_FORMER_HALF_LIFE = 16.0


def _migrated(policy: dict[str, Any]) -> dict[str, Any]:
    """The fields of a policy that this version has.

    Policies of earlier versions have settings that no longer exist. Their default half-life
    becomes 0, this version's default, which adapts to the load.
    """
    kept = {name: value for name, value in policy.items() if name not in FORMER_SETTINGS}
    if len(kept) < len(policy) and kept.get("half_life_steps") == _FORMER_HALF_LIFE:
        kept["half_life_steps"] = 0.0
    return kept
