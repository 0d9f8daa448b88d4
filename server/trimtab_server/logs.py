"""Structured logs on standard error."""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import structlog

from trimtab_server.setting import setting

LogLevel = Literal["debug", "info", "warning", "error"]
LogFormat = Literal["console", "json"]


@dataclass(frozen=True)
class LogConfig:
    """Logs."""

    log_level: LogLevel = setting("info", "Lowest level of events to log. debug logs each call.")
    log_format: LogFormat = setting(
        "console", "Format of logs: console for people, or json for one object per line."
    )


def configure_logs(config: LogConfig, environment: Mapping[str, str]) -> None:
    """Write the events of structlog and of the standard library to stderr, in one format.

    Args:
        config: which events, and how.
        environment: variables by name. If NO_COLOR is set, a terminal gets no colours.
    """
    shared: list[Any] = [
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                *_renderers(config.log_format, colors=not environment.get("NO_COLOR")),
            ],
        )
    )
    logging.basicConfig(handlers=[handler], level=config.log_level.upper(), force=True)
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
    )


def _renderers(log_format: LogFormat, *, colors: bool) -> list[Any]:
    if log_format == "json":
        return [structlog.processors.dict_tracebacks, structlog.processors.JSONRenderer()]
    return [structlog.dev.ConsoleRenderer(colors=colors and sys.stderr.isatty())]
