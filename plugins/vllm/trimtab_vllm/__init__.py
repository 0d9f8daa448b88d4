"""vLLM's expert-parallel load balancer (EPLB) asks Trimtab where its experts go.

An installed package is all that it takes: vLLM loads the entry point `register` in each of its
processes. Without TRIMTAB_TARGET in the environment it does nothing.
"""

from __future__ import annotations

import logging
import os

from trimtab_client import InvalidArgumentError
from trimtab_client.plugin import Leader, PluginSettings

__version__ = "0.1.0"

logger = logging.getLogger("vllm.trimtab")
"""Shown as vLLM's own messages are."""


def register() -> None:
    """Make Trimtab the policy of vLLM's EPLB, if the environment asks for it.

    If a setting is wrong, or the engine is none that this version knows, a warning says so, and the
    engine is left as it was.
    """
    try:
        settings = PluginSettings.from_environ(os.environ)
    except InvalidArgumentError as error:
        logger.warning("trimtab-vllm is not active: %s", error)
        return
    if settings is None:
        logger.debug("trimtab-vllm is not active: TRIMTAB_TARGET is not set")
        return
    # Only now: these import parts of the engine.
    from trimtab_vllm import hooks
    from trimtab_vllm.policy import make_policy

    unknown = hooks.unknown_parts()
    if unknown:
        logger.warning("trimtab-vllm is not active: this vLLM is not known: %s", unknown)
        return
    hooks.install(make_policy(Leader(settings, logger), observes=settings.observes))
    what = "reports to" if settings.observes else "asks"
    logger.info("trimtab-vllm: EPLB %s %s as %s", what, settings.target, settings.deployment)
