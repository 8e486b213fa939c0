"""Rows → labelled steps: groups of one completion, each step of which has a label."""

from __future__ import annotations

from itertools import accumulate, pairwise
from typing import Any

from transformers import PreTrainedTokenizerBase

from sharpen.data.columns import (
    is_conversational,
    missing_column,
    numbers_of,
    said_column,
    text_column,
    typed_column,
)
from sharpen.data.exchanges import Exchange, fitting_groups, make_groups
from sharpen.data.positions import step_ends, token_ends
from sharpen.data.prompt_format import Loaded, PromptFormat
from sharpen.data.rows import Rows
from sharpen.data.tokens import hidden_ids, visible_text
from sharpen.errors import DataError
from sharpen.types import Group, Score, StepValue, Trajectory


def load_steps(rows: Rows, format: PromptFormat, *, separator: str | None) -> Loaded[Group]:
    """Make a group of one completion of every row, its score's ``steps`` the labels and its ``total`` the least.

    Rows have ``prompt`` (a string or messages), ``labels`` (a list of booleans, or of numbers from 0 to 1) and one of:
    ``steps`` or ``completions``, a list of strings, joined with ``separator`` after each but the last where it does
    not end so already; ``completion``, a string, with ``positions``, the character offsets at which its steps end; or
    ``completion`` alone, cut after each ``separator`` (see `sharpen.data.positions.step_ends`).

    A label stands at the token that completes its step, that of the last step at the end-of-sequence token. Steps
    that end within one token become one, with the lowest of their labels. `make_groups` says how prompt and completion
    are tokenised.

    Raises DataError for a missing column, a value of the wrong type, an empty prompt or step, a number of labels other
    than the number of steps, positions that do not rise or lie beyond the text, a text that the tokenizer or chat
    template changes, and a row longer than the context.
    """
    if "prompt" not in rows.columns or "labels" not in rows.columns:
        raise missing_column(rows, ("labels",) if "prompt" in rows.columns else ("prompt",))
    texts, ends = _texts_and_ends(rows, separator)
    labels = [_labels(rows, index, len(row_ends)) for index, row_ends in enumerate(ends)]
    conversational = is_conversational(rows, "prompt")
    prompts = said_column(rows, "prompt", conversational=conversational)
    exchanges = [
        Exchange(prompt, ([{"role": "assistant", "content": text}] if conversational else text,), ("its completion",))
        for prompt, text in zip(prompts, texts, strict=True)
    ]
    groups = []
    for index, group in enumerate(make_groups(rows, exchanges, format)):
        (completion,) = group.trajectories
        places = _positions(rows.where(index), completion, texts[index], ends[index], format.tokenizer)
        steps: dict[int, float] = {}
        for place, label in zip(places, labels[index], strict=True):
            steps[place] = min(label, steps.get(place, label))
        values = tuple(StepValue(place, label) for place, label in steps.items())
        groups.append(group.scored((Score(min(labels[index]), steps=values),)))
    return fitting_groups(rows, groups, format)


def _texts_and_ends(rows: Rows, separator: str | None) -> tuple[list[str], list[tuple[int, ...]]]:
    """Each row's completion and the character offsets at which its steps end."""
    column = next((name for name in ("steps", "completions") if name in rows.columns), None)
    if column is not None:
        lists: list[list[Any]] = typed_column(rows, column, list, "a list of strings")
        joined = [_joined(f"{rows.where(i)}: column `{column}`", steps, separator) for i, steps in enumerate(lists)]
        return ["".join(steps) for steps in joined], [tuple(accumulate(map(len, steps))) for steps in joined]
    if "completion" not in rows.columns:
        raise missing_column(rows, ("steps", "completion"))
    texts = text_column(rows, "completion")
    for index, text in enumerate(texts):
        if not text.strip():
            raise DataError(f"{rows.where(index)}: column `completion` is empty; write at least one step")
    if "positions" in rows.columns:
        return texts, [_given_ends(rows, index, text) for index, text in enumerate(texts)]
    if separator is None:
        raise DataError(
            f"{rows.name}: where do the steps of column `completion` end? Give a separator, or a column `positions` of "
            "their end offsets in characters, or a column `steps` instead of `completion`"
        )
    return texts, [step_ends(text, separator) for text in texts]


def _joined(what: str, steps: list[Any], separator: str | None) -> list[str]:
    if not steps:
        raise DataError(f"{what} has no steps; at least one is needed")
    for number, step in enumerate(steps, start=1):
        if not isinstance(step, str):
            raise DataError(f"{what}, entry {number} must be a string, not {type(step).__name__} ({repr(step)[:60]})")
        if not step.strip():
            raise DataError(f"{what}, entry {number} is empty; write the text of the step")
    if separator is None:
        return list(steps)
    return [*(s if s.endswith(separator) else s + separator for s in steps[:-1]), steps[-1]]


def _given_ends(rows: Rows, index: int, text: str) -> tuple[int, ...]:
    where = f"{rows.where(index)}: column `positions`"
    ends = tuple(int(number) for number in numbers_of(rows, index, "positions"))
    if ends != numbers_of(rows, index, "positions"):
        raise DataError(f"{where} must hold whole numbers, character offsets")
    if any(later <= earlier for earlier, later in pairwise((0, *ends))):
        raise DataError(f"{where} must ascend from above 0: {list(ends)}")
    if ends and ends[-1] > len(text):
        raise DataError(f"{where} goes to {ends[-1]}, but the completion has {len(text)} characters")
    return ends


def _labels(rows: Rows, index: int, steps: int) -> tuple[float, ...]:
    labels = numbers_of(rows, index, "labels")
    if len(labels) != steps or not labels:
        raise DataError(f"{rows.where(index)}: column `labels` has {len(labels)} labels for {steps} steps")
    for number, label in enumerate(labels, start=1):
        if not 0 <= label <= 1:
            raise DataError(
                f"{rows.where(index)}: column `labels`, entry {number} is {label:g}; it must be from 0 to 1"
            )
    return labels


def _positions(
    where: str, completion: Trajectory, text: str, ends: tuple[int, ...], tokenizer: PreTrainedTokenizerBase
) -> tuple[int, ...]:
    """The last token of each step. A chat template may add text before the completion and strip whitespace."""
    hidden = hidden_ids(tokenizer, completion.token_ids[-1:])
    decoded = visible_text(tokenizer, completion.token_ids, hidden)
    found = decoded.find(text.strip())
    if found < 0:
        raise DataError(
            f"{where}: the tokenizer or the chat template changes the completion's text, so the ends of its steps "
            f"cannot be found; it becomes {repr(decoded)[:80]}"
        )
    shift = found - (len(text) - len(text.lstrip()))
    inner = token_ends(completion.token_ids, [end + shift for end in ends[:-1]], tokenizer, hidden)
    return (*inner, len(completion.token_ids) - 1)
