"""Programs that some tests need and that a machine may lack."""

from __future__ import annotations

import os
import shutil

import pytest


def program(name: str) -> str:
    """Path of a program. Without it the test is skipped, or fails where
    TRIMTAB_REQUIRE_SERVICES=1 says that nothing may be skipped."""
    path = shutil.which(name)
    if path is None:
        reason = f"{name} is not installed"
        if os.environ.get("TRIMTAB_REQUIRE_SERVICES") == "1":
            pytest.fail(reason)
        pytest.skip(reason)
    return path
