"""Keep what model libraries say to themselves away from the user."""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module

__all__ = ["download_bars", "quiet"]


@contextmanager
def quiet() -> Iterator[None]:
    """Hold back warnings, log lines below ERROR and the bars drawn while weights are read.

    What matters of them is checked by the loaders and raised as an error. The progress of a
    download is another thing and stays.

    Examples
    --------
    >>> with quiet():
    ...     warnings.warn("unheard")
    ...     logging.warning("unheard")
    """
    level = logging.root.manager.disable
    # A library that calls `logging.info` would otherwise set up the root logger for good.
    silent = logging.NullHandler()
    logging.root.addHandler(silent)
    logging.disable(max(level, logging.WARNING))
    try:
        with warnings.catch_warnings(), _no_bars():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
        logging.root.removeHandler(silent)


@contextmanager
def _no_bars() -> Iterator[None]:
    bars = sys.modules.get("transformers.utils.logging")
    if bars is None or not bars.is_progress_bar_enabled():
        yield
        return
    utils = import_module("huggingface_hub.utils")
    # Those of the hub are switched along with them, both ways.
    hub_disabled = utils.are_progress_bars_disabled()
    bars.disable_progress_bar()
    try:
        yield
    finally:
        bars.enable_progress_bar()
        if hub_disabled:
            utils.disable_progress_bars()


@contextmanager
def download_bars(*, shown: bool) -> Iterator[None]:
    """Let the hub's library draw its progress, or not; leave it as it was."""
    utils = import_module("huggingface_hub.utils")
    if shown or utils.are_progress_bars_disabled():
        yield
        return
    utils.disable_progress_bars()
    try:
        yield
    finally:
        utils.enable_progress_bars()
