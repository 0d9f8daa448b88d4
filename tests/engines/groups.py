"""Groups of an engine's ranks, as tests drive them: each runs in the engine's own Python."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / ".venv-engines"
"""Made by `make engines`."""


class Group:
    """The ranks of an engine.

    Attributes:
        log: what they have printed beside their answers.
    """

    def __init__(self, process: subprocess.Popen[str], log: Path) -> None:
        self._process = process
        self._log = log
        self.ranks = len(self._answer())

    def run(self, steps: int, **how: Any) -> dict[str, Any]:
        """Take steps on all ranks.

        Returns:
            What the ranks have seen, the same on all of them: `maps`, `rebalances`, how many of
            them `moved` an expert, and how many steps `switched` a layer. And the `wrong` slots.
        """
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"steps": steps, **how}) + "\n")
        self._process.stdin.flush()
        seen = self._answer()
        alike = ("maps", "rebalances", "moved", "switched")
        for name in alike:
            assert all(each[name] == seen[0][name] for each in seen), f"ranks differ in {name}"
        assert all(each["worker_lives"] for each in seen), self.log
        wrong = sum(each["wrong"] for each in seen)
        return {**{name: seen[0][name] for name in alike}, "wrong": wrong}

    @property
    def log(self) -> str:
        """What the ranks have printed beside their answers."""
        return self._log.read_text()

    def _answer(self) -> list[dict[str, Any]]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, self.log
        answer: list[dict[str, Any]] = json.loads(line)
        return answer


@contextmanager
def group(
    engine: str, folder: Path, options: dict[str, Any], **environment: str
) -> Iterator[Group]:
    """Start the ranks of an engine, with these variables in their environment.

    Args:
        engine: "vllm" or "sglang".
        folder: where the log goes.
        options: see the main module of the engine's ranks.
        **environment: settings of the plug-in, without the TRIMTAB_ of their names.
    """
    python = FOLDER / "bin" / "python"
    if not (FOLDER / ".ready").exists():
        reason = "the engines' code is not here: make engines"
        if os.environ.get("TRIMTAB_REQUIRE_SERVICES"):
            pytest.fail(reason)
        pytest.skip(reason)
    variables = {f"TRIMTAB_{name}": value for name, value in environment.items()}
    paths = os.pathsep.join(map(str, (FOLDER / engine, ROOT)))
    threads = dict.fromkeys(("OMP_NUM_THREADS", "NUMBA_NUM_THREADS"), "1")
    command = [python, "-m", f"tests.engines.{engine}_group", json.dumps(options)]
    with (
        (folder / "log").open("w") as log,
        subprocess.Popen(
            command,
            cwd=ROOT,
            env={**os.environ, **threads, **variables, "PYTHONPATH": paths},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        ) as process,
    ):
        try:
            yield Group(process, folder / "log")
        finally:
            process.kill()
