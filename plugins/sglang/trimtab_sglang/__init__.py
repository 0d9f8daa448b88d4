"""SGLang's expert-parallel load balancer (EPLB) asks Trimtab where its experts go.

An installed package is all that it takes: SGLang loads the entry point `register` in each of its
processes. Without TRIMTAB_TARGET in the environment it does nothing.
"""

from __future__ import annotations

import logging

from trimtab_client import plugin

__version__ = "0.1.0"

logger = logging.getLogger("sglang.trimtab")
"""Shown as SGLang's own messages are."""


def register() -> None:
    """Let SGLang's EPLB ask Trimtab, if the environment says so: see `plugin.activate`."""
    plugin.activate("trimtab-sglang", logger, _hooks)


def _hooks() -> plugin.Hooks:
    from trimtab_sglang import hooks

    return hooks
