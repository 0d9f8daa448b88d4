"""Maps the arguments of calls to the paths of request fields."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields

from trimtab_protocol.errors import MalformedError, Violation
from trimtab_server.domain.errors import InvalidArgumentError
from trimtab_server.domain.topology import Topology
from trimtab_server.solver.budget import Budget
from trimtab_server.solver.settings import Settings

_OPTIONS = {name: f"options.{name}" for name in ("effort", *(f.name for f in fields(Settings)))}

PACK_FIELDS: Mapping[str, str] = _OPTIONS
PLACE_FIELDS: Mapping[str, str] = {
    **_OPTIONS,
    **{f.name: f"topology.{f.name}" for f in fields(Topology)},
    **{f.name: f"budget.{f.name}" for f in fields(Budget)},
    "current": "current.phy2log",
    "phy2log": "current.phy2log",
}


@contextmanager
def named_as(paths: Mapping[str, str]) -> Iterator[None]:
    """Raise an InvalidArgumentError that names request fields by their paths, not arguments.

    A name that is not in `paths` is a path already. An index stays: "current[0, 3]"
    becomes "current.phy2log[0, 3]".
    """
    try:
        yield
    except MalformedError as error:
        raise InvalidArgumentError(*(_renamed(v, paths) for v in error.violations)) from error


def _renamed(violation: Violation, paths: Mapping[str, str]) -> Violation:
    name, bracket, index = violation.field.partition("[")
    return Violation(paths.get(name, name) + bracket + index, violation.description)
