"""The chat template that the settings name in place of the tokenizer's own."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

from jinja2 import TemplateSyntaxError, meta
from transformers import PreTrainedTokenizerBase
from transformers.utils.chat_template_utils import _compile_jinja_template

from sharpen.errors import RecipeError
from sharpen.suggest import did_you_mean


def template_text(given: str, setting: str = "data.chat_template") -> str | None:
    """The text of a template that is given as such or as a file; None for the name of one of the tokenizer's own.

    Raises RecipeError, naming the file or the ``setting`` and the line, if it cannot be read as a template.
    """
    if _is_template(given):
        return _compiled(given, setting)
    path = Path(given).expanduser()
    if path.is_file():
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise RecipeError(f"{setting}: {given} cannot be read: {error}") from error
        if not _is_template(text):
            raise RecipeError(f"{setting}: {given} holds no chat template: there is neither {{{{ nor {{% in it")
        return _compiled(text, f"{setting}: {given}")
    if path.suffix or len(path.parts) > 1:
        raise RecipeError(f"{setting}: {given}: no such file")
    return None


def use_template(tokenizer: PreTrainedTokenizerBase, given: str | None, setting: str = "data.chat_template") -> None:
    """Give a tokenizer this template: a text, a file, or the name of one of its own. None leaves its own.

    Raises RecipeError as `template_text` does, and for a name that it has no template of.
    """
    if given is None:
        return
    text = template_text(given, setting)
    if text is None:
        own: Any = tokenizer.chat_template
        named = own if isinstance(own, dict) else {}
        if given not in named:
            has = f"the tokenizer has the templates {', '.join(named)}" if named else "the tokenizer names none"
            hint = did_you_mean(given, list(named))
            raise RecipeError(f"{setting}: {given}: there is no such file, and {has}.{hint}".removesuffix("."))
        text = _compiled(named[given], f"{setting}: {given}")
    tokenizer.chat_template = text


@lru_cache
def variables_of(template: str) -> frozenset[str]:
    """The names that a template reads and does not always set: its arguments."""
    return frozenset(meta.find_undeclared_variables(_compile_jinja_template(template).environment.parse(template)))


def _is_template(text: str) -> bool:
    return "{%" in text or "{{" in text


def _compiled(text: str, what: str) -> str:
    try:
        _compile_jinja_template(text)
    except TemplateSyntaxError as error:
        raise RecipeError(f"{what}, line {error.lineno}: {error.message}") from error
    return text
