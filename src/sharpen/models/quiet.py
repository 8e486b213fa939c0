"""Loading and saving without what transformers itself would draw across the display of the run."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from logging import ERROR
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


@contextmanager
def without_load_report() -> Iterator[None]:
    """No table of missing and unexpected weights meanwhile, for a caller who looks at both."""
    logger = logging.get_logger("transformers.modeling_utils")
    before = logger.level
    logger.setLevel(ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)
