"""Loading and saving without what transformers itself would draw across the display of the run."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from logging import Filter, LogRecord
from typing import Any

from transformers.utils import logging


@contextmanager
def without_progress_bars() -> Iterator[None]:
    """No bars of transformers meanwhile. Those of downloads, which can take long, stay."""

    def silent(factory: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return factory(*args, **{**kwargs, "disable": True})

    before = logging.set_tqdm_hook(silent)
    try:
        yield
    finally:
        logging.set_tqdm_hook(before)


class _Nothing(Filter):
    def filter(self, record: LogRecord) -> bool:
        return False


@contextmanager
def without_load_report() -> Iterator[None]:
    """No table of missing and unexpected weights meanwhile, for a caller who looks at both."""
    logger = logging.get_logger("transformers.modeling_utils")

    # A filter and not the level: at another level transformers complains of other things.
    nothing = _Nothing()
    logger.addFilter(nothing)
    try:
        yield
    finally:
        logger.removeFilter(nothing)
