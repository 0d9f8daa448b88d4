from __future__ import annotations

import json
from typing import Any

import pytest

from tests.client.conftest import often, service, worker
from trimtab_tools.cli import main

__all__ = ["often", "service", "worker"]


class Cli:
    """The command `trimtab`, in this process.

    Each method runs it, checks its exit code, and that it says nothing on the other stream.
    """

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def out(self, *arguments: object, code: int = 0) -> str:
        """Standard output."""
        out, err = self._run(arguments, code)
        assert err == ""
        return out

    def json(self, *arguments: object, code: int = 0) -> Any:
        """Standard output with --json, parsed. It has to be JSON without NaN and infinity."""
        out = self.out(*arguments, "--json", code=code)
        return json.loads(out, parse_constant=pytest.fail)

    def err(self, *arguments: object, code: int = 1) -> str:
        """Standard error."""
        out, err = self._run(arguments, code)
        assert out == ""
        return err

    def _run(self, arguments: tuple[object, ...], code: int) -> tuple[str, str]:
        try:
            ended: object = main([str(argument) for argument in arguments])
        except SystemExit as exited:
            ended = exited.code
        assert ended == code
        return self._capsys.readouterr()


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Cli:
    return Cli(capsys)
