"""Findings → the reward, and what the model has to be told so that it can earn it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from sharpen.scaffold.answers import Answers
from sharpen.scaffold.findings import Findings

BOXED = "Put the final answer in \\boxed{}."
WORDS_ALONE = "a bare list of words gets the full reward: add a reward for what else a completion should be"
FENCED = "Answer with one block of Python, fenced by ```python and ```."


@dataclass(frozen=True, slots=True)
class RewardChoice:
    """A reward's settings with its name, why, the system message that a chat needs for it, and a doubt about it."""

    settings: dict[str, Any] = field(default_factory=dict)
    why: str = ""
    system: str | None = None
    unsure: str | None = None


def choose_reward(findings: Findings, *, chat: bool) -> RewardChoice | None:
    """None if the rows do not say which completions are right."""
    if findings.answers is not None:
        return _of_answers(findings.answers, chat=chat)
    if findings.code is not None:
        where = {} if chat else {"code_from": "whole"}
        return RewardChoice({**findings.code, **where}, "1 if the program passes all tests", FENCED)
    if findings.words is not None:
        settings = {"name": "contains", "column": findings.words}
        return RewardChoice(settings, "1 if all the words are there", unsure=WORDS_ALONE)
    return None


def _of_answers(answers: Answers, *, chat: bool) -> RewardChoice:
    column = {} if answers.column == "answer" else {"column": answers.column}
    if answers.form == "mathematics":
        if chat:
            return RewardChoice({"name": "math", **column}, "1 if the last \\boxed{} equals the answer", BOXED)
        source = "last_number" if answers.numbers else "boxed"
        why = f"1 if the {'last number' if answers.numbers else 'last boxed answer'} equals the answer"
        return RewardChoice({"name": "math", **column, "answer_from": source}, why)
    told = "Reply with the answer only."
    if answers.choices:
        told = f"Reply with one of these only: {', '.join(sorted(answers.choices))}."
    return RewardChoice({"name": "exact_answer", **column}, "1 if the completion is the answer and nothing else", told)
