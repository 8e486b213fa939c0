"""Rows → preferences: groups of graded completions of one prompt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sharpen.data.chat.messages import said_by, without_nulls
from sharpen.data.columns import (
    Text,
    check_messages,
    is_conversational,
    missing_column,
    number_of,
    numbers_of,
    said_column,
    typed_column,
)
from sharpen.data.exchanges import Exchange, fitting_groups, make_groups
from sharpen.data.formats import PAIR
from sharpen.data.prompt_format import Loaded, PromptFormat
from sharpen.data.rows import Rows
from sharpen.errors import DataError
from sharpen.types import Group, Message, Score


def load_preferences(rows: Rows, format: PromptFormat) -> Loaded[Group]:
    """Make a group of graded completions of every row: a score's ``total`` is the grade, higher is better.

    Rows have ``chosen`` and ``rejected``, and grades 1 and 0, or ``margin`` and 0 where there is that column; or
    ``completions``, two or more, with ``scores`` (higher is better) or ``ranks`` (1 is best; a rank's grade is how far
    it is above the worst). Ties are allowed unless all are tied. ``prompt`` and the completions are strings or lists of
    messages. Completions may also be whole conversations: these begin with the messages of ``prompt``, or with a user
    message of its text, or have no ``prompt`` beside them; then the prompt is their common beginning, up to an
    assistant turn in each of them. `make_groups` says how they are tokenised.

    Raises DataError for a missing column, a value of the wrong type, an empty prompt or completion, completions that
    are all the same, grades that are all the same or not finite, a margin that is not positive, a number of grades
    other than the number of completions, and a row longer than the context.
    """
    columns = set(rows.columns)
    if columns >= set(PAIR):
        answers, names = _pairs(rows), PAIR
        grades = _margins(rows) if "margin" in columns else [(1.0, 0.0)] * len(rows)
        named = [tuple(f"column `{name}`" for name in names)] * len(rows)
    elif columns >= {"prompt", "completions"}:
        answers = _ranked(rows)
        grades = _grades(rows, answers)
        named = [tuple(f"completion {i + 1} of column `completions`" for i in range(len(a))) for a in answers]
    else:
        raise _missing(rows)
    exchanges = _exchanges(rows, answers, named)
    groups = make_groups(rows, exchanges, format)
    for index, group in enumerate(groups):
        if len({tuple((s.prefix_ids, s.token_ids) for s in t.samples) for t in group.trajectories}) == 1:
            what = " and ".join(named[index]) if len(group.trajectories) == 2 else "all completions"
            raise DataError(f"{rows.where(index)}: {what} are the same, so none is preferred")
    graded = [
        group.scored(tuple(Score(grade) for grade in row_grades))
        for group, row_grades in zip(groups, grades, strict=True)
    ]
    return fitting_groups(rows, graded, format, noun="longest completion")


def _missing(rows: Rows) -> DataError:
    for column, other in (PAIR, PAIR[::-1], ("completions", "prompt")):
        if column in rows.columns:
            return missing_column(rows, (other,))
    return missing_column(rows, ("chosen", "completions"))


def _pairs(rows: Rows) -> list[tuple[Text, ...]]:
    conversational = is_conversational(rows, "chosen")
    chosen, rejected = (said_column(rows, column, conversational=conversational) for column in PAIR)
    return list(zip(chosen, rejected, strict=True))


def _ranked(rows: Rows) -> list[tuple[Text, ...]]:
    lists: list[list[Any]] = typed_column(rows, "completions", list, "a list of completions")
    for index, answers in enumerate(lists):
        if len(answers) < 2:
            raise DataError(
                f"{rows.where(index)}: column `completions` has {len(answers)} completions; a ranking needs two or more"
            )
        for number, answer in enumerate(answers, start=1):
            name = f"completion {number} of column `completions`"
            if isinstance(answer, list) and not isinstance(lists[0][0], str):
                check_messages(answer, f"{rows.where(index)}:", name)
            elif not (isinstance(answer, str) and isinstance(lists[0][0], str)):
                of_first: Mapping[type, str] = {str: "a string", list: "a list of messages"}
                wanted = of_first.get(type(lists[0][0]), "a text or a list of messages")
                keys = f"; its keys are {', '.join(map(str, answer))}" if isinstance(answer, Mapping) else ""
                raise DataError(f"{rows.where(index)}: {name} must be {wanted}, not {type(answer).__name__}{keys}")
    return [tuple(without_nulls(answers)) for answers in lists]


def _margins(rows: Rows) -> list[tuple[float, ...]]:
    margins = [number_of(rows, index, "margin") for index in range(len(rows))]
    for index, margin in enumerate(margins):
        if margin <= 0:
            raise DataError(f"{rows.where(index)}: column `margin` is {margin:g}; it must be above 0")
    return [(margin, 0.0) for margin in margins]


def _grades(rows: Rows, answers: Sequence[Sequence[Text]]) -> list[tuple[float, ...]]:
    given = [column for column in ("scores", "ranks") if column in rows.columns]
    if not given:
        raise missing_column(rows, ("scores", "ranks"))
    if len(given) > 1:
        raise DataError(f"{rows.name}: has both `scores` and `ranks`; leave one of them out")
    (column,) = given
    grades = []
    for index, completions in enumerate(answers):
        values = numbers_of(rows, index, column)
        if len(values) != len(completions):
            raise DataError(
                f"{rows.where(index)}: column `{column}` has {len(values)} values for {len(completions)} completions"
            )
        if len(set(values)) == 1:
            raise DataError(f"{rows.where(index)}: column `{column}` ties all completions, so none is preferred")
        if column == "ranks":
            values = tuple(max(values) - value for value in values)
        grades.append(values)
    return grades


def _exchanges(rows: Rows, answers: Sequence[tuple[Text, ...]], named: Sequence[tuple[str, ...]]) -> list[Exchange]:
    for index, (completions, names) in enumerate(zip(answers, named, strict=True)):
        for completion, name in zip(completions, names, strict=True):
            if not completion:
                raise DataError(f"{rows.where(index)}: {name} is empty; write at least one token")
    if "prompt" not in rows.columns:
        if isinstance(answers[0][0], str):
            raise DataError(
                f"{rows.name}: no column `prompt`; without it `chosen` and `rejected` must be lists of messages, whose "
                "common beginning is the prompt"
            )
        prompts: Sequence[Text | None] = [None] * len(rows)
    else:
        prompts = said_column(rows, "prompt", conversational=is_conversational(rows, "prompt"))
        if isinstance(answers[0][0], str) and not isinstance(prompts[0], str):
            raise DataError(
                f"{rows.where(0)}: {named[0][0]} must be a list of messages, as column `prompt` is, not str"
            )
    return [
        _exchange(rows.where(index), prompt, completions, names)
        for index, (prompt, completions, names) in enumerate(zip(prompts, answers, named, strict=True))
    ]


def _exchange(where: str, prompt: Text | None, answers: tuple[Text, ...], names: tuple[str, ...]) -> Exchange:
    conversations = [answer for answer in answers if not isinstance(answer, str)]
    if not conversations or (prompt is not None and all(c[0]["role"] == "assistant" for c in conversations)):
        assert prompt is not None
        if conversations and isinstance(prompt, str):
            prompt = [{"role": "user", "content": prompt}]
        return Exchange(prompt, answers, names)
    if isinstance(prompt, list):
        start = len(prompt)
        for conversation, name in zip(conversations, names, strict=True):
            if conversation[:start] != prompt or len(conversation) == start:
                raise DataError(
                    f"{where}: {name} must begin with an assistant turn, or with the messages of `prompt` and more"
                )
    else:
        start = _common_beginning(where, conversations, names)
        asked = next(message for message in conversations[0] if message["role"] != "system")
        if prompt is not None and said_by(asked) != prompt.strip():
            raise DataError(f"{where}: {names[0]} does not begin with a message of the text in column `prompt`")
    return Exchange(conversations[0][:start], tuple(c[start:] for c in conversations), names)


def _common_beginning(where: str, conversations: Sequence[list[Message]], names: Sequence[str]) -> int:
    """How many messages come before the assistant turn in which the conversations first differ."""
    shortest = min(map(len, conversations))
    common = next(
        (i for i in range(shortest) if any(c[i] != conversations[0][i] for c in conversations[1:])), shortest - 1
    )
    for start in range(common, 0, -1):
        if all(c[start]["role"] == "assistant" for c in conversations) and any(
            message["role"] != "system" for message in conversations[0][:start]
        ):
            return start
    raise DataError(f"{where}: {names[0]} and {names[1]} have no common beginning before an assistant turn")
