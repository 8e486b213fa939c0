"""The date that chat templates write as today's: that of a run's start, so that it can be resumed tomorrow."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import date, datetime, time
from typing import Any

from transformers import PreTrainedTokenizerBase
from transformers.utils.chat_template_utils import _compile_jinja_template

_written: ContextVar[date | None] = ContextVar("the date that chat templates write", default=None)
_FUNCTION = "strftime_now"
"""What transformers gives templates to write the date with: Llama 3.2, Granite and gpt-oss do so."""


def today() -> date:
    """The date here and now."""
    return datetime.now().astimezone().date()


@contextmanager
def date_written(day: date | None) -> Iterator[None]:
    """Let chat templates write this date, at midnight, as today's. None leaves it as it is.

    It holds for tokenizers whose templates went through `settle_date`, in this thread and in those that run in a copy
    of its context.
    """
    token = None if day is None else _written.set(day)
    try:
        yield
    finally:
        if token is not None:
            _written.reset(token)


def settle_date(template: str) -> None:
    """Make a template write the date of `date_written`, also where transformers alone renders it later."""
    # transformers has no argument for it: it hands a template data, no functions. Compiled templates are kept by text.
    _compile_jinja_template(template).environment.globals[_FUNCTION] = _strftime


def writes_date(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether one of a tokenizer's chat templates writes the date."""
    templates: Any = tokenizer.chat_template
    given = templates.values() if isinstance(templates, dict) else [templates or ""]
    return any(_FUNCTION in template for template in given)


def _strftime(format: str) -> str:
    day = _written.get()
    now = datetime.now().astimezone() if day is None else datetime.combine(day, time())
    return now.strftime(format)
