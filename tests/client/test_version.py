"""How operators name versions."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from trimtab_client import InvalidArgumentError, Version
from trimtab_client.wire_values import as_version


@pytest.mark.parametrize(
    ("named", "version"),
    [
        (Version(2, 3), Version(2, 3)),
        ("2.3", Version(2, 3)),
        (str(Version(2, 30)), Version(2, 30)),
        (3, Version(0, 3)),
        (np.int64(3), Version(0, 3)),
        ("3", Version(0, 3)),
        ("0", Version(0, 0)),
        (2**64 - 1, Version(0, 2**64 - 1)),
    ],
    ids=str,
)
def test_a_version_is_named_whole_or_by_its_generation(named: Any, version: Version) -> None:
    assert as_version(named, "version") == version


@pytest.mark.parametrize(
    ("named", "complaint"),
    [
        ("", "'' is not a version such as '2.3', or a generation"),
        ("2.", "'2.' is not a version"),
        ("v3", "'v3' is not a version"),
        ("1.2.3", "'1.2.3' is not a version"),
        ("-3", "'-3' is not a version"),
        ("\u0663", "is not a version"),
        ("9" * 5000, "is not a version"),
        (-3, "-3 is not in"),
        (2**64, "is not in"),
        (str(2**64), "is not in"),
        (2.3, "2.3 is not an integer"),
        (True, "True is not an integer"),
        (None, "None is not an integer"),
        (Version(-1, 3), "-1 is not in"),
        (Version(1, "3"), "'3' is not an integer"),  # type: ignore[arg-type]
    ],
)
def test_an_invalid_version_is_refused(named: Any, complaint: str) -> None:
    with pytest.raises(InvalidArgumentError, match=complaint) as caught:
        as_version(named, "known")
    assert [violation.field for violation in caught.value.field_violations] == ["known"]
