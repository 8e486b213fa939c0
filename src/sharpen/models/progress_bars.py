"""Keeps transformers' progress bars and reports out of the run's own display."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from logging import Filter, LogRecord
from typing import Any

from transformers.utils import logging

from sharpen.models.kernels import private_torch


@contextmanager
def without_progress_bars() -> Iterator[None]:
    """Hide transformers' progress bars, except those of downloads, which can take long."""
    if private_torch.set_tqdm_hook is None:
        yield from _without_any_progress_bars()
        return

    def silent(factory: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return factory(*args, **{**kwargs, "disable": True})

    before = private_torch.set_tqdm_hook(silent)
    try:
        yield
    finally:
        private_torch.set_tqdm_hook(before)


def _without_any_progress_bars() -> Iterator[None]:
    enabled = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if enabled:
            logging.enable_progress_bar()


class _Nothing(Filter):
    def filter(self, record: LogRecord) -> bool:
        return False


@contextmanager
def without_load_report() -> Iterator[None]:
    """Hide transformers' table of missing and unexpected weights; the caller checks both."""
    logger = logging.get_logger("transformers.modeling_utils")

    # A filter, not a level: changing the level makes transformers report other things.
    nothing = _Nothing()
    logger.addFilter(nothing)
    try:
        yield
    finally:
        logger.removeFilter(nothing)
