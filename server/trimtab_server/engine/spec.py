"""What a deployment is and what its operators want, as the store keeps it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

from trimtab_server.domain.topology import Topology
from trimtab_server.engine.arrival import Facts
from trimtab_server.policy.policy import FORMER_SETTINGS, Mode, Policy
from trimtab_server.store.errors import StoreCorruptError


@dataclass(frozen=True)
class Spec:
    """A deployment, as its first worker or an operator has it, and its policy."""

    facts: Facts
    policy: Policy

    def encode(self) -> str:
        """As JSON. Later versions read it again."""
        values: dict[str, Any] = {"facts": asdict(self.facts), "policy": asdict(self.policy)}
        values["policy"]["mode"] = self.policy.mode.value
        return json.dumps(values)

    @classmethod
    def decode(cls, text: str) -> Spec:
        """The spec that `text` was made of. What it does not know of stays as it is by default.

        Raises:
            StoreCorruptError: this is none.
        """
        try:
            values = json.loads(text)
            facts, policy = values["facts"], values["policy"]
            topology, mode = Topology(**facts["topology"]), Mode(policy["mode"])
            kept = _migrated(policy)
            return cls(Facts(**{**facts, "topology": topology}), Policy(**{**kept, "mode": mode}))
        except (KeyError, TypeError, ValueError) as error:
            raise StoreCorruptError(f"a spec cannot be read: {error!r}") from error


_FORMER_HALF_LIFE = 16.0


def _migrated(policy: dict[str, Any]) -> dict[str, Any]:
    """A policy as this version has it.

    Those of earlier versions have settings that are of no use any more, and a half-life that was
    the default, and is the load's own choice now.
    """
    kept = {name: value for name, value in policy.items() if name not in FORMER_SETTINGS}
    if len(kept) < len(policy) and kept.get("half_life_steps") == _FORMER_HALF_LIFE:
        kept["half_life_steps"] = 0.0
    return kept
