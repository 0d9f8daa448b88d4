"""Finds variables of the environment that look like settings and are none. Pure."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from difflib import get_close_matches
from typing import NamedTuple

PREFIX = "TRIMTAB_"

OTHER_PROGRAMS = frozenset(
    {
        # The plug-ins of engines, and the command trimtab.
        *("TRIMTAB_TARGET", "TRIMTAB_DEPLOYMENT", "TRIMTAB_MODE", "TRIMTAB_TIMEOUT"),
        *("TRIMTAB_TLS_CA", "TRIMTAB_TLS_CERT", "TRIMTAB_TLS_KEY", "TRIMTAB_SERVER"),
        # This project's tests.
        *("TRIMTAB_GPU_TARGETS", "TRIMTAB_REQUIRE_ENGINES", "TRIMTAB_REQUIRE_SERVICES"),
    }
)
"""What other programs of this project read. On a developer's machine the server sees it too."""

_OF_KUBERNETES = re.compile(
    r"TRIMTAB(_[A-Z0-9_]+)?_"
    r"(SERVICE_HOST|SERVICE_PORT(_[A-Z0-9_]+)?|PORT(_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?)"
)
"""What Kubernetes sets in each container, for services called trimtab or trimtab-anything."""


class UnknownVariable(NamedTuple):
    """A variable that names no setting.

    Attributes:
        name: of the variable.
        nearest: the variable of a setting whose name is the nearest.
        is_misspelt: whether one edit makes one of the other: a character more, less, or another
            one, or two neighbours swapped.
    """

    name: str
    nearest: str
    is_misspelt: bool


def unknown_variables(given: Iterable[str], settings: Collection[str]) -> list[UnknownVariable]:
    """The variables that begin with TRIMTAB_ and that nothing is known to read, sorted.

    Args:
        given: names of the variables that are set.
        settings: names of the variables that the server reads; at least one.
    """
    return [
        _compared(name, settings)
        for name in sorted(given)
        if name.startswith(PREFIX)
        and name not in settings
        and name not in OTHER_PROGRAMS
        and not _OF_KUBERNETES.fullmatch(name)
    ]


def _compared(name: str, settings: Collection[str]) -> UnknownVariable:
    for setting in settings:
        if _is_one_edit(name, setting):
            return UnknownVariable(name, setting, is_misspelt=True)
    (nearest,) = get_close_matches(name.upper(), settings, n=1, cutoff=0.0)
    return UnknownVariable(name, nearest, is_misspelt=False)


def _is_one_edit(one: str, other: str) -> bool:
    if len(one) == len(other):
        differing = [at for at, pair in enumerate(zip(one, other, strict=True)) if len({*pair}) > 1]
        if len(differing) == 2:
            first, second = differing
            swapped = one[first : second + 1] == other[first : second + 1][::-1]
            return second == first + 1 and swapped
        return len(differing) == 1
    shorter, longer = sorted((one, other), key=len)
    without_one = (longer[:at] + longer[at + 1 :] for at in range(len(longer)))
    return len(longer) == len(shorter) + 1 and shorter in without_one
