"""Rule-based rewards: exact answer, words, tags."""

from __future__ import annotations

import json
import re
from typing import Any, ClassVar, Literal, Self

from pydantic import Field, field_validator, model_validator

from sharpen.rewards.text.extraction import Source, extract, given, is_solution, normalise
from sharpen.rewards.verifier import Verifier, reference_text, text_of
from sharpen.settings import Effect, Name
from sharpen.types import Row


class ExactAnswer(Verifier):
    """1 if the answer in the completion is the expected one, else 0.

    ``answer_from`` says where the completion's answer is, see `sharpen.rewards.text.extraction.extract`; answers are
    compared after `sharpen.rewards.text.extraction.normalise`. ``column`` holds the expected answer; if it holds a
    solution with the answer in the marker, tags or box, the answer is extracted from there.
    """

    name: ClassVar[str] = "exact_answer"
    has_answer: ClassVar[bool] = True

    column: Name = "answer"
    """The column with the expected answer."""
    answer_from: Source = "whole"
    """Where the completion's answer is: the whole text, the rest of the line after the last `marker`, between tags, in
    the last \\boxed{…}, or the last number."""
    marker: str = Field("####", min_length=1)
    """What stands before the answer."""
    tag: Name = "answer"
    """The name of the tags around the answer."""
    case_sensitive: bool = False
    """Whether upper and lower case differ."""

    effects = (
        Effect("marker", "with answer_from marker", lambda s: s.answer_from == "marker"),
        Effect("tag", "with answer_from tags", lambda s: s.answer_from == "tags"),
    )

    @property
    def columns(self) -> tuple[str, ...]:
        return (self.column,)

    def answer(self, completion: str) -> str | None:
        found = extract(completion, self.answer_from, self.marker, self.tag)
        return None if found is None else normalise(found, self.case_sensitive) or None

    def reference(self, row: Row) -> str | None:
        expected = text_of(row, self.column)
        return None if expected is None else given(self._bare(expected), self.answer_from, self.marker, self.tag)

    def doubt(self, row: Row, prompt: str) -> str | None:
        expected = text_of(row, self.column)
        if expected is None or self.answer_from == "whole" or not is_solution(self._bare(expected)):
            return None
        return f"column `{self.column}` has a solution from which no answer can be taken, so that no answer equals it"

    def check_row(self, row: Row) -> None:
        reference_text(row, self.column)

    def __call__(self, completion: str, **row: Any) -> float:
        expected = self._bare(reference_text(row, self.column))
        return float(self.answer(completion) == normalise(expected, self.case_sensitive))

    def _bare(self, expected: str) -> str:
        if self.answer_from in ("marker", "tags", "boxed"):
            return extract(expected, self.answer_from, self.marker, self.tag) or expected
        return expected


class Contains(Verifier):
    """1 if the completion contains the words, else 0.

    The words are the list ``words``, or the row's ``column``: a string (one word or phrase), a list, or its JSON text.
    With ``whole_word``, a word must not be adjacent to a letter or digit. ``mode`` requires all or any of the words.
    """

    name: ClassVar[str] = "contains"

    words: tuple[Name, ...] = ()
    """The words, the same for all rows."""
    column: Name | None = None
    """The column with the words of each row, instead of `words`."""
    mode: Literal["all", "any"] = "all"
    """Whether the completion must contain all of the words, or any."""
    whole_word: bool = True
    """Whether a word must not be adjacent to a letter or digit."""
    case_sensitive: bool = False
    """Whether upper and lower case differ."""

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if bool(self.words) == (self.column is not None):
            raise ValueError("give either words (a list) or column (the column that holds the words)")
        return self

    @property
    def columns(self) -> tuple[str, ...]:
        return () if self.column is None else (self.column,)

    def reference(self, row: Row) -> str | None:
        words = [str(word).strip() for word in self._wanted(row)]
        return " ".join(words if self.mode == "all" else words[:1]) or None

    def check_row(self, row: Row) -> None:
        self._words(row)

    def __call__(self, completion: str, **row: Any) -> float:
        words = self._words(row)
        found = [self._holds(completion, word.strip()) for word in words]
        return float(all(found) if self.mode == "all" else any(found))

    def _words(self, row: Row) -> tuple[str, ...]:
        """Raises ValueError for anything else than words."""
        words = self._wanted(row)
        if not words or not all(isinstance(word, str) and word.strip() for word in words):
            raise ValueError(f"the column {self.column!r} of this row holds no words: {words!r}")
        return words

    def _wanted(self, row: Row) -> tuple[Any, ...]:
        if self.column is None:
            return self.words
        value = row.get(self.column)
        if isinstance(value, str):
            return tuple(_listed(value) or (value,))
        return tuple(value) if isinstance(value, list | tuple) else () if value is None else (value,)

    def _holds(self, text: str, word: str) -> bool:
        pattern = rf"(?<!\w){re.escape(word)}(?!\w)" if self.whole_word else re.escape(word)
        return re.search(pattern, text, 0 if self.case_sensitive else re.IGNORECASE) is not None


def _listed(text: str) -> list[Any]:
    """The list that a text is as JSON, as in a CSV file, which has no lists; empty if it is none."""
    if not text.lstrip().startswith("["):
        return []
    try:
        found = json.loads(text)
    except ValueError:
        return []
    return found if isinstance(found, list) else []


FILLER = "Let me think about it."
"""The content of the tags other than the answer's, in completions constructed by `sharpen reward check`."""


class Tags(Verifier):
    """1 if the completion consists of exactly the tags, once each, in order and non-empty; else 0.

    The default ``tags`` are ``<think>…</think> <answer>…</answer>``. ``prefilled`` is for chat templates that end the
    prompt with the first opening tag: the completion then starts inside it.
    """

    name: ClassVar[str] = "tags"

    tags: tuple[Name, ...] = Field(("think", "answer"), min_length=1)
    """The names of the tags, in order."""
    prefilled: bool = False
    """Whether the prompt ends with the first opening tag, so that the completion starts inside it."""

    @field_validator("tags")
    @classmethod
    def _distinct(cls, tags: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(tags)) < len(tags) or not all(tags):
            raise ValueError("the tags must be distinct and not empty")
        return tags

    def doubt(self, row: Row, prompt: str) -> str | None:
        if self.prefilled or not prompt.rstrip().endswith(f"<{self.tags[0]}>"):
            return None
        return (
            f"the prompt ends with <{self.tags[0]}>, which {self.name} expects in the completion: set `prefilled: true`"
        )

    def around(self, answer: str) -> str:
        """The tags with ``answer`` on its own line in the last of them, and filler text in the others."""
        *before, last = self.tags
        filled = "".join(f"<{tag}>{FILLER}</{tag}>\n" for tag in before)
        text = f"{filled}<{last}>\n{answer}\n</{last}>"
        return text.removeprefix(f"<{self.tags[0]}>") if self.prefilled else text

    def __call__(self, completion: str, **row: Any) -> float:
        text = f"<{self.tags[0]}>{completion}" if self.prefilled else completion
        for tag in self.tags:
            if text.count(f"<{tag}>") != 1 or text.count(f"</{tag}>") != 1:
                return 0.0
        for tag in self.tags:
            text = text.lstrip()
            content, closed, rest = text.partition(f"</{tag}>")
            if not closed or not content.startswith(f"<{tag}>"):
                return 0.0
            filling = content.removeprefix(f"<{tag}>")
            if not filling.strip() or any(f"<{other}>" in filling for other in self.tags):
                return 0.0
            text = rest
        return float(not text.strip())
