"""Correct histories, written line by line, and what a test does with them."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable
from typing import Any

import numpy as np

from trimtab_client import Placement
from trimtab_tools.history import Report, check_history, read_history

LAYERS, EXPERTS, GPUS = 2, 3, 2
WORKERS = ("w0", "w1")
Line = dict[str, Any]


class Run:
    """Writes the correct history of a deployment.

    Attributes:
        lines: what has been written.
        epoch: the newest.
        generation: the newest.
        incarnations: of the workers' processes.
    """

    def __init__(self, deployment: str | None = None, seed: int = 0) -> None:
        self.lines: list[Line] = []
        self.epoch = self.generation = 0
        self.incarnations = dict.fromkeys(WORKERS, 0)
        self._deployment = deployment
        self._rng = np.random.default_rng(seed)
        self._applied = [0, 0]
        self._digests: dict[tuple[int, ...], str] = {}
        self._step = 0
        self._seqs: dict[tuple[str, int], int] = {}
        self._counts: dict[tuple[str, int], int] = {}

    def started(self) -> None:
        self.lines.append({"kind": "started"})

    def opened(self, dead: Iterable[str] = WORKERS) -> None:
        """A group forms, in which dead processes have restarted, and its epoch opens."""
        for worker in dead:
            self.incarnations[worker] += 1
        self.epoch += 1
        self._applied = [self.epoch, 0]
        members = {
            worker: {"incarnation": self.incarnations[worker], "gpus": [gpu]}
            for gpu, worker in enumerate(WORKERS)
        }
        group, placement = f"group {self.epoch}", self._place(self._applied)
        self._say("epoch", epoch=self.epoch, group=group, members=members, **placement)
        for worker in WORKERS:
            self._work(worker, "in_force", self._applied, group=group)

    def offered(self) -> list[int]:
        self.generation += 1
        version = [self.epoch, self.generation]
        self._say("offered", version=version, base=self._applied, **self._place(version))
        return version

    def prepared(self, version: list[int], workers: Iterable[str] = WORKERS) -> None:
        for worker in workers:
            self._work(worker, "prepared", version)

    def committed(self, version: list[int]) -> None:
        self._say("committed", version=version, digest=self._digests[*version])
        for worker in WORKERS:
            self._say("commit_sent", version=version, worker=worker)

    def flipped(self, version: list[int]) -> None:
        self._step += 8
        for worker in WORKERS:
            self._work(worker, "flipped", version, step=self._step)
        self._say("applied", version=version, digest=self._digests[*version])
        self._applied = version

    def switched(self) -> None:
        """A switch from offer to flip."""
        version = self.offered()
        self.prepared(version)
        self.committed(version)
        self.flipped(version)

    def refused(self) -> None:
        """A switch that is offered, prepared by some, and aborted."""
        version = self.offered()
        self.prepared(version, WORKERS[:1])
        self._say("aborting", version=version, reason="refused by 'w1'")
        self._say("aborted", version=version)

    def restarted(self) -> None:
        """The server dies over an offer; the one after it presumes the abort."""
        version = self.offered()
        self.prepared(version, WORKERS[1:])
        self.started()
        self._say("aborted", version=version)

    def overtaken(self, *, committed: bool) -> None:
        """A switch ends with its epoch."""
        version = self.offered()
        self.prepared(version)
        if committed:
            self.committed(version)
        else:
            self._say("aborted", version=version)
        self.opened()

    def reported(self, worker: str, difference: int, gap: int = 0) -> None:
        who = worker, self.incarnations[worker]
        self._seqs[who] = self._seqs.get(who, 0) + 1
        self._counts[who] = self._counts.get(who, 0) + difference + gap
        values = {"difference": difference, "gap": gap, "counts": self._counts[who]}
        self._say("report", worker=who[0], incarnation=who[1], seq=self._seqs[who], **values)

    def restored(self, worker: str, lost: int = 0) -> None:
        """A server goes on from what was saved before the last few counts and reports."""
        who = worker, self.incarnations[worker]
        self._counts[who] = max(self._counts.get(who, 0) - lost, 0)
        self._seqs[who] = 0
        self._say("restored", worker=who[0], incarnation=who[1], counts=self._counts[who])

    def _work(self, worker: str, kind: str, version: list[int], **values: Any) -> None:
        who = {"worker": worker, "incarnation": self.incarnations[worker]}
        self._say(kind, **who, version=version, digest=self._digests[*version], **values)

    def _say(self, kind: str, **values: Any) -> None:
        where = {} if self._deployment is None else {"deployment": self._deployment}
        self.lines.append({"kind": kind, **where, **values})

    def _place(self, version: list[int]) -> Line:
        row = [*range(EXPERTS), self._rng.integers(EXPERTS)]
        placed = recorded([self._rng.permutation(row).tolist() for _ in range(LAYERS)])
        self._digests[*version] = placed["digest"]
        return placed


def recorded(phy2log: list[list[int]]) -> Line:
    """Digest and record of a placement, which may be wrong."""
    placement = Placement(np.array(phy2log, np.int32), EXPERTS, GPUS)
    data = base64.b64encode(placement.phy2log.astype("<i4").tobytes()).decode()
    shape = list(placement.phy2log.shape)
    values = {"experts": EXPERTS, "gpus": GPUS, "shape": shape, "phy2log": data}
    return {"digest": placement.digest.hex(), "placement": values}


def clean_run() -> Run:
    """Two epochs, six switches, of which two are aborted, and a restart.

    w0 lives through both epochs; w1 dies between them.
    """
    run = Run("d")
    run.started()
    run.opened()
    run.reported("w0", 10)
    run.reported("w1", 7)
    run.switched()  # 1.1
    run.refused()  # 1.2
    run.reported("w1", 3, gap=2)
    run.restarted()  # 1.3
    run.restored("w0", lost=4)
    run.reported("w0", 5, gap=2)
    run.switched()  # 1.4
    version = run.offered()  # 1.5
    run.prepared(version)
    run.opened(dead=["w1"])
    run.switched()  # 2.6
    return run


def clean() -> list[Line]:
    return with_terms(clean_run().lines)


def with_terms(lines: list[Line]) -> list[Line]:
    """These lines, with rising terms of one server."""
    starts = [line for line in lines if line["kind"] == "started"]
    for term, line in enumerate(starts, start=1):
        line["term"] = term
    return lines


def judge(lines: list[Line], *, complete: bool = False) -> Report:
    return check_history(read_history(map(json.dumps, lines)), complete=complete)


_NUMBERS = {"started": "term", "epoch": "epoch", "report": "counts"}


def name_of(line: Line) -> str:
    """What `find` knows a line by, such as "flipped 1.4 w1", "epoch 2" or "report 12 w1"."""
    number = line.get(_NUMBERS.get(line["kind"], ""))
    version = ".".join(map(str, line.get("version", ())))
    parts = (line["kind"], version, number, line.get("worker"))
    return " ".join(str(part) for part in parts if part not in ("", None))


def index_of(lines: list[Line], name: str) -> int:
    """Where the first line stands whose name begins so."""
    return next(n for n, line in enumerate(lines) if name_of(line).startswith(name))


def find(lines: list[Line], name: str) -> Line:
    return lines[index_of(lines, name)]
