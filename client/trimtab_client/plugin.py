"""What the plug-ins of engines share: settings, the process that asks, one answer for all ranks.

Legend for all shapes: L layers, E logical experts, R expert slots.
"""

from __future__ import annotations

import inspect
import logging
import math
import os
import queue
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from trimtab_client.channel import TlsOptions
from trimtab_client.client import Client
from trimtab_client.engine import EngineOptions, EngineSession
from trimtab_client.exceptions import InvalidArgumentError, TrimtabError, invalid
from trimtab_client.options import Topology
from trimtab_client.placement import Placement
from trimtab_client.retry import RetryPolicy
from trimtab_protocol.messages import Split

logger = logging.getLogger(__name__)

IntArray = npt.NDArray[np.int64]

_MODES = ("follow", "observe")
_RETRY = RetryPolicy(max_attempts=2)


@dataclass(frozen=True)
class PluginSettings:
    """Settings of a plug-in, from the environment of the engine's processes.

    Attributes:
        target: TRIMTAB_TARGET, the server: "host:port" or any other gRPC target.
        deployment: TRIMTAB_DEPLOYMENT, the name of this model instance.
        observes: whether TRIMTAB_MODE is "observe": the engine's own policy decides, and the server
            is only told. The default is "follow".
        timeout: TRIMTAB_TIMEOUT, the most seconds by which the server may delay a rebalance.
        tls: TRIMTAB_TLS_CA, TRIMTAB_TLS_CERT and TRIMTAB_TLS_KEY, paths of PEM files; None for
            plain text.

    Raises:
        InvalidArgumentError: a variable has a value that cannot be; the error names it.
    """

    target: str
    deployment: str
    observes: bool = False
    timeout: float = 2.0
    tls: TlsOptions | None = None

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> PluginSettings | None:
        """The settings; None if TRIMTAB_TARGET is not set: then the plug-in does nothing."""
        target = environ.get("TRIMTAB_TARGET", "")
        if not target:
            return None
        deployment = environ.get("TRIMTAB_DEPLOYMENT", "")
        if not deployment:
            raise invalid("TRIMTAB_DEPLOYMENT", "is not set: give this model instance a name")
        mode = environ.get("TRIMTAB_MODE", "follow")
        if mode not in _MODES:
            raise invalid("TRIMTAB_MODE", f"{mode!r} is not one of {list(_MODES)}")
        return cls(target, deployment, mode == "observe", _timeout(environ), _tls(environ))


class ModelLoad(NamedTuple):
    """What one model of an engine has done since its last rebalance.

    Attributes:
        key: tells the models of one engine apart; empty for the first.
        model: its name, for people.
        topology: its slots, GPUs, nodes and groups.
        bytes_per_expert: size of the weights of one expert in one layer.
        counts: int [L, E], the tokens that all ranks together have routed to each expert; with
            `per_slot` [L, R], those that each slot has processed.
        phy2log_LR: int [L, R], the placement in force.
        steps: number of steps since its last rebalance.
        num_experts: E.
        split: how the engine divides the tokens of an expert over its replicas.
        per_slot: whether `counts` has slots.
    """

    key: str
    model: str
    topology: Topology
    bytes_per_expert: int
    counts: npt.NDArray[np.integer]
    phy2log_LR: npt.NDArray[np.integer]
    steps: int
    num_experts: int
    split: Split = Split.EVEN
    per_slot: bool = False


class Leader:
    """The process of a group that speaks for it. Nothing here raises: the engine serves on.

    It connects when it is first used, so it may be made before a fork.

    Args:
        settings: of the plug-in.
        logger: the engine's, which is told of switches and failures.

    Attributes:
        observes: whether the engine's own policy decides, and the server is only told.
    """

    def __init__(self, settings: PluginSettings, logger: logging.Logger) -> None:
        self.observes = settings.observes
        self._settings = settings
        self._log = logger
        self._client: Client | None = None
        self._connecting = threading.Lock()
        self._sessions: dict[str, EngineSession] = {}
        self._last_failure = ""
        self._reports: queue.SimpleQueue[ModelLoad] | None = None

    def ask(self, load: ModelLoad) -> Placement | None:
        """Report a load; returns the placement to switch to, or None to keep the one in force.

        Takes as long as the timeout at most.
        """
        name = self._name(load)
        try:
            answer = self._session(load).rebalance(
                load.counts,
                _placement(load),
                load.steps,
                per_slot=load.per_slot,
                timeout=self._settings.timeout,
            )
        except TrimtabError as error:
            # A failure that lasts is told once.
            if str(error) != self._last_failure:
                self._log.warning("Trimtab: %s keeps its placement: %s", name, error)
            self._last_failure = str(error)
            return None
        except Exception:  # noqa: BLE001 - the engine serves on
            self._log.exception("Trimtab: %s keeps its placement", name)
            return None
        self._last_failure = ""
        if answer.placement is None:
            self._log.info("Trimtab: %s keeps its placement: %s", name, answer.kept_because)
        else:
            self._log.info(
                "Trimtab: %s switches to %s, %d moves", name, answer.version, answer.moves
            )
        return answer.placement

    def tell(self, load: ModelLoad) -> None:
        """Report a load in the background, where no answer is wanted."""
        if self._reports is None:
            self._reports = queue.SimpleQueue()
            threading.Thread(target=self._tell_all, name="trimtab", daemon=True).start()
        self._reports.put(load)

    def warm(self) -> None:
        """Connect in the background, so that the first question need not wait for it."""
        threading.Thread(target=self._connect, name="trimtab-warm", daemon=True).start()

    def _connect(self) -> None:
        try:
            self._connected().health(timeout=self._settings.timeout)
        except TrimtabError as error:
            self._log.warning("Trimtab: no server at %s yet: %s", self._settings.target, error)
        except Exception:  # noqa: BLE001 - the engine serves on
            self._log.exception("Trimtab: no connection to %s", self._settings.target)

    def _tell_all(self) -> None:
        while self._reports is not None:
            self.ask(self._reports.get())

    def _connected(self) -> Client:
        settings = self._settings
        # The first question may come while the plug-in still warms up, on another thread.
        with self._connecting:
            if self._client is None:
                self._client = Client(settings.target, tls=settings.tls, retry=_RETRY)
            return self._client

    def _name(self, load: ModelLoad) -> str:
        """The deployment of a model."""
        name = self._settings.deployment
        return f"{name}/{load.key}" if load.key else name

    def _session(self, load: ModelLoad) -> EngineSession:
        """The session of a model. A model that has another shape than before gets a new one."""
        settings, session = self._settings, self._sessions.get(load.key)
        if session is None or session.options.topology != load.topology:
            options = EngineOptions(
                deployment=self._name(load),
                topology=load.topology,
                bytes_per_expert=load.bytes_per_expert,
                model=load.model,
                observes=settings.observes,
                split=load.split,
            )
            session = self._sessions[load.key] = EngineSession(self._connected(), options)
        return session


class Hooks(Protocol):
    """The places where a plug-in changes its engine."""

    def unknown_parts(self) -> str:
        """Which parts of the engine are not as the plug-in knows them; empty if all are."""

    def install(self, leader: Leader) -> None:
        """Change the engine, in which the leader then asks the server."""


def activate(plugin: str, logger: logging.Logger, load: Callable[[], Hooks]) -> None:
    """Change an engine, if the environment asks for it.

    If a setting is wrong, or the engine is none that the plug-in knows, a warning says so, and the
    engine is left as it was.

    Args:
        plugin: name of the plug-in.
        logger: the engine's.
        load: imports the hooks, and with them parts of the engine.
    """
    try:
        settings = PluginSettings.from_environ(os.environ)
    except InvalidArgumentError as error:
        logger.warning("%s is not active: %s", plugin, error)
        return
    if settings is None:
        logger.debug("%s is not active: TRIMTAB_TARGET is not set", plugin)
        return
    hooks = load()
    unknown = hooks.unknown_parts()
    if unknown:
        logger.warning("%s is not active: this engine is not known: %s", plugin, unknown)
        return
    hooks.install(Leader(settings, logger))
    what = "reports to" if settings.observes else "asks"
    logger.info("%s: EPLB %s %s as %s", plugin, what, settings.target, settings.deployment)


def changed_signatures(
    known: Mapping[str, tuple[Callable[..., Any], tuple[str, ...]]],
) -> list[str]:
    """Functions of an engine, by name, whose parameters are not those that a plug-in knows."""
    seen = {name: tuple(inspect.signature(each).parameters) for name, (each, _) in known.items()}
    return [
        f"{name}({', '.join(seen[name])}) is not {name}({', '.join(expected)})"
        for name, (_, expected) in known.items()
        if seen[name] != expected
    ]


def agreed(
    target: Placement | None,
    phy2log_LR: npt.NDArray[np.integer],
    broadcast: Callable[[IntArray], None],
) -> IntArray:
    """The same placement on all ranks: that of the leader's answer, or the one in force.

    All ranks of a group call it at once, with the same placement in force.

    Args:
        target: the leader's answer; None to keep the placement in force, and on other ranks.
        phy2log_LR: int [L, R], the placement in force.
        broadcast: replaces an array on all ranks by the leader's.

    Returns:
        int64 [L, R], of its own memory.
    """
    message = np.zeros(1 + phy2log_LR.size, np.int64)
    if target is not None:
        message[0], message[1:] = 1, target.phy2log.ravel()
    try:
        broadcast(message)
    except Exception:
        # A rank has died, so the engine's own next collective fails as well.
        logger.exception("Trimtab: the ranks could not agree, this one keeps its placement")
        message[0] = 0
    if not message[0]:
        return phy2log_LR.astype(np.int64)
    return message[1:].reshape(phy2log_LR.shape)


def _placement(load: ModelLoad) -> Placement:
    return Placement.of(load.phy2log_LR, load.num_experts, load.topology.num_gpus)


def _timeout(environ: Mapping[str, str]) -> float:
    text = environ.get("TRIMTAB_TIMEOUT", "2")
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < math.inf:
        raise invalid("TRIMTAB_TIMEOUT", f"{text!r} is not a number of seconds above 0")
    return seconds


def _tls(environ: Mapping[str, str]) -> TlsOptions | None:
    names = {name: f"TRIMTAB_TLS_{name.upper()}" for name in ("ca", "cert", "key")}
    paths = {name: environ[variable] for name, variable in names.items() if variable in environ}
    return TlsOptions(**paths) if paths else None
