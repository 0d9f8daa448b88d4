"""Groups of an engine's ranks, as tests drive them: each runs in the engine's own Python."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / ".venv-engines"
"""Made by `make engines`."""


def environ_of(*engines: str, ours: Iterable[str] = ()) -> dict[str, str]:
    """The environment in which Python finds engines, the tests, and these parts of the project."""
    parts = *(FOLDER / engine for engine in engines), ROOT, *(ROOT / part for part in ours)
    threads = dict.fromkeys(("OMP_NUM_THREADS", "NUMBA_NUM_THREADS"), "1")
    return {**os.environ, **threads, "PYTHONPATH": os.pathsep.join(map(str, parts))}


class Host:
    """The process that has imported an engine, and starts its groups.

    Args:
        engine: "vllm" or "sglang".
        folder: where the logs go.
    """

    def __init__(self, engine: str, folder: Path) -> None:
        self._folder = folder
        self._groups = 0
        self.log = folder / "host"
        with self.log.open("w") as log:
            self._process = subprocess.Popen(
                [FOLDER / "bin" / "python", "-m", f"tests.engines.{engine}_group"],
                cwd=ROOT,
                env=environ_of(engine),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )

    def start(self, options: dict[str, Any], **settings: str) -> Group:
        """Start the ranks of a group; those of the group before end.

        Args:
            options: see the main module of the engine's ranks.
            **settings: of the plug-in, without the TRIMTAB_ of their names.
        """
        self._groups += 1
        log = self._folder / f"group{self._groups}"
        environ = {f"TRIMTAB_{name}": value for name, value in settings.items()}
        self.ask({"start": options, "environ": environ, "log": str(log)})
        return Group(self, log)

    def ask(self, command: dict[str, Any]) -> list[dict[str, Any]]:
        """What all ranks answer to a command."""
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        stdin.write(json.dumps(command) + "\n")
        stdin.flush()
        line = stdout.readline()
        assert line, self.log.read_text() + (self._folder / f"group{self._groups}").read_text()
        answers: list[dict[str, Any]] = json.loads(line)
        return answers

    def close(self) -> None:
        """End the process, and the ranks with it."""
        with self._process as process:
            assert process.stdin is not None
            process.stdin.close()


class Group:
    """The ranks of an engine, until its host starts others."""

    def __init__(self, host: Host, log: Path) -> None:
        self._host = host
        self._log = log

    def run(self, steps: int, **how: Any) -> dict[str, Any]:
        """Take steps on all ranks.

        Returns:
            What the ranks have seen, the same on all of them: `maps`, `rebalances`, how many of
            them `moved` an expert, and how many steps `switched` a layer. Over all ranks: the
            `wrong` slots, and the tokens that each slot has `processed`, [L, R].
        """
        seen = self._host.ask({"steps": steps, **how})
        alike = ("maps", "rebalances", "moved", "switched")
        for name in alike:
            assert all(each[name] == seen[0][name] for each in seen), f"ranks differ in {name}"
        assert all(each["worker_lives"] for each in seen), self.log
        wrong = sum(each["wrong"] for each in seen)
        processed_LR = sum(np.array(each["processed"]) for each in seen)
        same = {name: seen[0][name] for name in alike}
        return {**same, "wrong": wrong, "processed": processed_LR}

    def resize(self) -> list[bool]:
        """For each rank, whether the engine's own policy decides where a group grows or shrinks."""
        return [each["own"] for each in self._host.ask({"resize": True})]

    def split(self) -> list[str]:
        """How each rank of SGLang says that tokens are divided over the replicas of an expert."""
        return [each["split"] for each in self._host.ask({"split": True})]

    def dump(self, folder: Path) -> list[Any]:
        """Let SGLang's recorder write there; returns what each rank routed, [L, E]."""
        return [each["routed"] for each in self._host.ask({"dump": str(folder)})]

    @property
    def log(self) -> str:
        """What the ranks have printed."""
        return self._log.read_text()


class Hosts:
    """A host for each engine that is asked for."""

    def __init__(self, folders: pytest.TempPathFactory) -> None:
        self._folders = folders
        self._hosts: dict[str, Host] = {}

    def group(self, engine: str, options: dict[str, Any], **settings: str) -> Group:
        """New ranks of an engine; see `Host.start`."""
        if engine not in self._hosts:
            self._hosts[engine] = Host(engine, self._folders.mktemp(engine))
        return self._hosts[engine].start(options, **settings)

    def close(self) -> None:
        """End them."""
        for host in self._hosts.values():
            host.close()


def require_engines() -> None:
    """Skip the test if the engines' code is not here. It fails where CI says so."""
    if not (FOLDER / ".ready").exists():
        reason = "the engines' code is not here: make engines"
        if os.environ.get("TRIMTAB_REQUIRE_ENGINES"):
            pytest.fail(reason)
        pytest.skip(reason)
