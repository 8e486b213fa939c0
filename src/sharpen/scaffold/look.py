"""Rows → what they are for: their kind, and the use of each column."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from sharpen.data.columns import WHOLE_TEXTS
from sharpen.data.paths import paths_into, values_at
from sharpen.data.positions import step_ends
from sharpen.data.rows import Rows
from sharpen.data.turns import is_sharegpt
from sharpen.errors import DataError
from sharpen.scaffold.answers import Answers, look_at_answers
from sharpen.scaffold.code import code_reward, columns_of
from sharpen.scaffold.findings import Findings
from sharpen.scaffold.names import ANSWER, CHOSEN, COMPLETION, MESSAGES, PROMPT, REJECTED, WORDS, first_of
from sharpen.scaffold.part import Part, part_of

SURE_ANSWERS = ANSWER[:6]
"""Names that say that an answer is to be compared, even beside a completion."""

SEPARATORS = ("\n\n", "\n")


def look(rows: Rows) -> Findings:
    """What rows are for.

    Raises:
        DataError: no column can be used, or a row lacks one or differs in kind from others.
    """
    part = part_of(rows)
    for find in (_preferences, _steps, _prompted, _conversations):
        found = find(part)
        if found is not None:
            break
    else:
        raise _no_column(rows)
    return replace(found, uses={column: found.uses[column] for column in rows.columns if column in found.uses})


def _preferences(part: Part) -> Findings | None:
    columns = part.columns
    chosen, rejected = first_of(CHOSEN, columns), first_of(REJECTED, columns)
    asked = first_of(PROMPT, columns)
    prompt = {} if asked is None else {asked: "the prompt"}
    if chosen is not None and rejected is not None:
        conversational = part.is_conversational(chosen)
        if part.is_conversational(rejected) is not conversational:
            raise DataError(f"{part.rows.name}: `{chosen}` and `{rejected}` must both be texts or both be messages")
        margin = {"margin": "by how much it is better"} if "margin" in columns else {}
        return Findings(
            kind="preferences",
            uses={**prompt, chosen: "the better completion", rejected: "the worse completion", **margin},
            asked=asked,
            conversational=conversational,
            shown=chosen,
            renames=_renames({asked: "prompt", chosen: "chosen", rejected: "rejected"}),
        )
    if chosen == "chosen" or rejected == "rejected":
        missing = "rejected" if rejected is None else "chosen"
        raise DataError(
            f"{part.rows.name}: no column `{missing}` beside `{chosen or rejected}`; it has {_all(columns)}"
        )
    grades = first_of(("scores", "ranks"), columns)
    if "completions" not in columns or grades is None:
        return None
    first = part.values("completions")[0]
    return Findings(
        kind="preferences",
        uses={**prompt, "completions": "completions to compare", grades: "how good each one is"},
        asked=asked,
        conversational=isinstance(first, list) and bool(first) and isinstance(first[0], list),
        renames=_renames({asked: "prompt"}),
    )


def _steps(part: Part) -> Findings | None:
    said = first_of(("steps", "completions", "completion"), part.columns)
    if said is None or "labels" not in part.columns:
        return None
    labels = part.values("labels")
    if not all(isinstance(of_row, list) for of_row in labels):
        return None
    asked = first_of(PROMPT, part.columns)
    if asked is None:
        raise DataError(f"{part.rows.name}: no column `prompt` beside `labels`; it has {_all(part.columns)}")
    uses = {asked: "the prompt", said: "the steps", "labels": "whether each step is right"}
    separator = None
    if said == "completion":
        if "positions" in part.columns:
            uses["positions"] = "where each step ends"
        else:
            separator = _separator(part, part.values(said), labels)
    elif not all(str(step)[-1:].isspace() for steps in part.values(said) for step in steps[:-1]):
        separator = "\n"
    return Findings(
        kind="marked steps",
        uses=uses,
        asked=asked,
        conversational=part.is_conversational(asked),
        step_separator=separator,
        renames=_renames({asked: "prompt"}),
    )


def _separator(part: Part, texts: Sequence[str], labels: Sequence[Sequence[Any]]) -> str:
    """The separator that gives as many steps as there are labels in every row."""
    for separator in SEPARATORS:
        if all(len(step_ends(text, separator)) == len(marks) for text, marks in zip(texts, labels, strict=True)):
            return separator
    raise DataError(
        f"{part.rows.name}: where do the steps of column `completion` end? Neither a line break nor an empty line "
        "gives as many steps as `labels` has labels: put the steps into a list in a column `steps`"
    )


def _prompted(part: Part) -> Findings | None:
    """Rows with a column of prompts."""
    columns = part.columns
    asked = first_of(PROMPT, columns)
    if asked is None or (asked != "prompt" and "messages" in columns):
        return None
    conversational = part.is_conversational(asked)
    if conversational:
        _conversation_ends(part, asked, wanted=False)
    base = Findings(
        kind="prompts",
        uses={asked: f"the prompt, {'messages' if conversational else 'plain text'}"},
        asked=asked,
        conversational=conversational,
        has_system=conversational and any(_role(messages[0]) == "system" for messages in part.values(asked)),
        renames=_renames({asked: "prompt"}),
    )
    scored = _scored(part, base)
    if scored is not None:
        return scored
    completion = first_of([name for name in COMPLETION if name != asked], columns)
    if completion is None and "messages" in columns:
        return None
    if completion is None:
        return base
    if part.is_conversational(completion) is not conversational:
        raise DataError(f"{part.rows.name}: `{asked}` and `{completion}` must both be texts or both be messages")
    return replace(
        base,
        kind="demonstrations",
        uses={**base.uses, completion: "the completion that is imitated"},
        shown=completion,
        renames=_renames({asked: "prompt", completion: "completion"}),
    )


def _conversations(part: Part) -> Findings | None:
    """Rows with a column of messages."""
    column = first_of(MESSAGES, part.columns)
    if column is None:
        return None
    if is_sharegpt(next(filter(None, (row.get(column) for row in part.rows)), None)):
        return Findings("demonstrations", {}, column, True, renames=_renames({column: "messages"}))
    ends = _conversation_ends(part, column)
    base = Findings(
        kind="demonstrations" if ends else "prompts",
        uses={column: "the conversation" if ends else "the prompt, messages"},
        asked=column,
        conversational=True,
        has_system=any(_role(messages[0]) == "system" for messages in part.values(column)),
        shown=column if ends else None,
        renames=_renames({column: "messages"}),
    )
    return base if ends else _scored(part, base) or base


def _scored(part: Part, base: Findings) -> Findings | None:
    """Prompts with something that a completion can be checked against."""
    columns = part.columns
    code = code_reward(part)
    if code is not None:
        uses = columns_of(code, columns)
        shown = next((column for column, use in uses.items() if use.startswith("a right")), None)
        return replace(base, kind="tests", uses={**base.uses, **uses}, code=code, shown=shown)
    completion = "completion" if "completion" in columns else None
    unsure = _beside(completion)
    answers = _answers(part, SURE_ANSWERS if completion else ANSWER, base.asked)
    if answers is not None:
        shown = answers.column if answers.worked else completion or _worked(part, answers.column)
        use = f"the right answer ({answers.form})"
        return replace(
            base, kind="answers", uses={**base.uses, answers.column: use}, answers=answers, shown=shown, unsure=unsure
        )
    words = first_of(WORDS, columns)
    if words is not None and all(_is_words(value) for value in part.values(words)):
        uses = {**base.uses, words: "words that the completion must contain"}
        return replace(base, kind="words", uses=uses, words=words, shown=completion, unsure=unsure)
    nested = _nested_answer(part) if first_of(COMPLETION, columns) is None else None
    if nested is not None:
        return replace(base, renames={**base.renames, nested: "answer"})
    return None


def _beside(completion: str | None) -> tuple[str, ...]:
    if completion is None:
        return ()
    return ("the rows have a `completion` too: `method: sft` would learn from these first, and needs no reward",)


def _answers(part: Part, names: Sequence[str], asked: str | None) -> Answers | None:
    for column in (name for name in names if name in part.columns and name != asked):
        if column not in SURE_ANSWERS and not part.is_complete(column):
            continue
        found = look_at_answers(column, part.values(column))
        if found is not None and found.form != "long text":
            return found
    return None


def _nested_answer(part: Part) -> str | None:
    """The path to answers within objects, ``reward_model.ground_truth`` as veRL has it."""
    for path in paths_into(part.rows[0]):
        if path.rpartition(".")[2] not in SURE_ANSWERS:
            continue
        values = [next(values_at(row, path), None) for row in part.rows]
        found = look_at_answers(path, values)
        if found is not None and found.form != "long text":
            return path
    return None


def _worked(part: Part, answer: str) -> str | None:
    """A column of worked solutions beside the answers."""
    for column in ("solution", "response", "output"):
        if column in part.columns and column != answer:
            return column
    return None


def _conversation_ends(part: Part, column: str, wanted: bool | None = None) -> bool:
    """Whether the conversations end with the assistant, all or none; ``wanted`` is what the rest of the rows needs."""
    ends = [_role(messages[-1]) == "assistant" for messages in part.conversations(column)]
    first = ends[0] if wanted is None else wanted
    for place, end in zip(part.places, ends, strict=True):
        if end is not first:
            kinds = {True: "ends with the assistant, as a demonstration", False: "does not, as a prompt"}
            other = f"and {part.places[0]} {kinds[first]}" if wanted is None else "but a prompt must not"
            raise DataError(f"{place}: column `{column}` {kinds[end]}, {other}: give rows of one kind")
    return first


def _role(message: Mapping[str, Any]) -> str:
    return str(message["role"])


def _is_words(value: Any) -> bool:
    words = [value] if isinstance(value, str) else value
    return isinstance(words, list | tuple) and bool(words) and all(isinstance(word, str) and word for word in words)


def _renames(names: Mapping[str | None, str]) -> dict[str, str]:
    return {column: name for column, name in names.items() if column is not None and column != name}


def _all(columns: Sequence[str]) -> str:
    return ", ".join(f"`{column}`" for column in columns)


def _no_column(rows: Rows) -> DataError:
    text = f" {WHOLE_TEXTS}"
    return DataError(
        f"{rows.name}: no column of prompts: it has {_all(rows.columns)}.{text if 'text' in rows.columns else ''} "
        "If one holds prompts or conversations, say so in a recipe: `data.columns: {prompt: COLUMN}`, or `messages`"
    )
