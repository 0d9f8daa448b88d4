"""A full plan that is made once, which serving with Trimtab is compared with."""

from __future__ import annotations

from trimtab_client.placement import Placement
from trimtab_tools.local_solver import local_solver
from trimtab_tools.simulate.options import FleetOptions


def static_plan(options: FleetOptions) -> Placement:
    """The plan for the mean load of all windows that are replayed.

    So it knows what is still to come, which no plan that was made before could.

    Raises:
        InvalidArgumentError: the trace cannot be read any more.
        SolverMissingError: the server's packages are not installed.
    """
    load_LE = options.loads().sum(axis=0)
    return local_solver()(load_LE, options.topology).placement
