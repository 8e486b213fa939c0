"""Reference completions, which should get a full reward, from the data's answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sharpen.rewards.checking.case import FORMS, AnswerForm
from sharpen.rewards.function import FunctionReward
from sharpen.rewards.reward import Reward
from sharpen.rewards.text.verifiers import Tags
from sharpen.types import Row

ANSWER_COLUMNS = ("solution", "completion", "reference", "answer")
"""Columns searched for references, in this order, if a reward function takes them."""

DEMONSTRATION_COLUMNS = ("completion", "chosen", "messages")
"""Columns that hold whole completions for any reward."""


@dataclass(frozen=True, slots=True)
class ReferenceCompletion:
    """A completion that should get a full reward, and the bare answer in it if known."""

    completion: str
    answer: str | None = None


@dataclass(frozen=True, slots=True)
class Origin:
    """A source of references. ``name`` says where they come from and in what form."""

    name: str
    of: Callable[[Row], ReferenceCompletion | None]


def origins(
    reward: Reward, columns: Sequence[str], given: str | Callable[[Row], str | None] | None = None
) -> list[Origin]:
    """The sources of references, the likeliest first.

    ``given`` is a column, which is then the only source, or a function, which is tried after the reward's own. If the
    reward requires tags, each source is also tried inside them.
    """
    if isinstance(given, str):
        return [Origin(f"column `{given}`", lambda row: _from(_text(row.get(given))))]
    leaves = reward.leaves()
    found = [Origin(f"the answer that {leaf.name} expects", _from_function(leaf.reference)) for leaf in leaves]
    if given is not None:
        found.append(Origin("the task's reference", _from_function(given)))
    found += [
        Origin(f"column `{column}`", _column(column, None)) for column in DEMONSTRATION_COLUMNS if column in columns
    ]
    functions = [leaf for leaf in leaves if isinstance(leaf, FunctionReward)]
    for column in ANSWER_COLUMNS:
        if column in columns and any(leaf.takes(column) for leaf in functions):
            found += [Origin(_origin_name(column, form), _column(column, form)) for form in FORMS]
    tags = [leaf.function for leaf in functions if isinstance(leaf.function, Tags)]
    return [wrapped for origin in found for wrapped in (origin, *(_within(tag, origin) for tag in tags))]


def said_by_assistant(value: Any) -> str | None:
    """The last message of a conversation, if it is the assistant's."""
    if not isinstance(value, Sequence) or isinstance(value, str) or not value:
        return None
    last = value[-1]
    return _text(last.get("content")) if isinstance(last, Mapping) and last.get("role") == "assistant" else None


def _origin_name(column: str, form: AnswerForm) -> str:
    return f"column `{column}`" if str(form) == "…" else f"column `{column}`, as {str(form)!r}"


def _column(column: str, form: AnswerForm | None) -> Callable[[Row], ReferenceCompletion | None]:
    def of(row: Row) -> ReferenceCompletion | None:
        text = said_by_assistant(row.get(column)) or _text(row.get(column))
        if text is None or form is None:
            return _from(text)
        return ReferenceCompletion(form.around(text), text)

    return of


def _from_function(function: Callable[[Row], str | None]) -> Callable[[Row], ReferenceCompletion | None]:
    return lambda row: _from(function(row))


def _within(tags: Tags, origin: Origin) -> Origin:
    """The same inside tags, with the answer in the last of them; an answer already in that tag is unwrapped first."""
    last = tags.tags[-1]

    def of(row: Row) -> ReferenceCompletion | None:
        found = origin.of(row)
        if found is None:
            return None
        inner = found.completion.removeprefix(f"<{last}>").removesuffix(f"</{last}>")
        return ReferenceCompletion(tags.around(inner), found.answer)

    return Origin(f"{origin.name}, within the tags {', '.join(f'<{tag}>' for tag in tags.tags)}", of)


def _from(text: str | None) -> ReferenceCompletion | None:
    return None if text is None else ReferenceCompletion(text)


def _text(value: Any) -> str | None:
    """A column's value as text, by ``str``; None if it is blank, a list or an object."""
    if value is None or isinstance(value, (list, tuple, dict)):
        return None
    return str(value) if str(value).strip() else None
