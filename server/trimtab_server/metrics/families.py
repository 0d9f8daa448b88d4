"""All of Trimtab's own metrics."""

from __future__ import annotations

from trimtab_server.metrics import deployment_families, solver_families

FAMILIES = (*solver_families.FAMILIES, *deployment_families.FAMILIES)
"""All of them, in the order to show them in."""
