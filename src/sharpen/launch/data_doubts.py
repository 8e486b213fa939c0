"""What looks wrong in data that can be read: signs of mistakes, each with its first row."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from hashlib import blake2b
from numbers import Real
from typing import Any

from transformers import PreTrainedTokenizerBase

from sharpen.rewards.reward import Reward
from sharpen.types import Group, Message, Prompt, Reads

MUCH_LONGER = 0.9
"""The share of pairs in which the better completion is the longer one, above which length could be what is learned."""
FEW_PAIRS = 20
PAIR_SCORES = (
    ("score_chosen", "score_rejected"),
    ("chosen_score", "rejected_score"),
    ("chosen_rating", "rejected_rating"),
)
"""Columns with the scores by which a pair was made."""


@dataclass(frozen=True, slots=True)
class ReadRow:
    """A row as the model will see it: a prompt alone, or with the completions of the row. ``where`` names the row."""

    where: str
    group: Group


@dataclass(frozen=True, slots=True)
class Reading:
    """How rows were read: as what, whether as chats, the tokens that end them, and the reward that scores answers."""

    reads: Reads
    chat: bool
    tokenizer: PreTrainedTokenizerBase
    ends: frozenset[int] = frozenset()
    reward: Reward | None = None


@dataclass(slots=True)
class _Sign:
    """A sign of a mistake: how many rows have it, and the first of them."""

    what: str
    applies: Callable[[ReadRow], bool]
    count: int = 0
    first: str = ""

    def look_at(self, row: ReadRow) -> None:
        if self.applies(row):
            self.count += 1
            self.first = self.first or row.where


class Doubts:
    """What looks wrong in rows, which may come in parts."""

    def __init__(self, reading: Reading) -> None:
        self._reading = reading
        self._signs = [_Sign(what, applies) for what, applies in _checks(reading)]
        self._repeated = _Sign("rows repeat an earlier one", self._is_repeated)
        self._rows = self._pairs = self._longer = 0
        self._seen: set[int] = set()
        self._never = None if reading.reward is None else NeverRight(reading.reward)

    def look_at(self, rows: Sequence[ReadRow]) -> None:
        self._rows += len(rows)
        for row in rows:
            for sign in (*self._signs, self._repeated):
                sign.look_at(row)
            if self._reading.reads == "preferences":
                self._compare_lengths(row)
            if self._never is not None:
                self._never.look_at(row.where, row.group.prompt)

    def lines(self) -> Iterator[str]:
        """One line for each thing that looks wrong."""
        for sign in (*self._signs, self._repeated):
            if sign.count:
                yield f"{sign.count} of {self._rows} {sign.what}; the first is {sign.first}"
        if self._pairs >= FEW_PAIRS and self._longer > MUCH_LONGER * self._pairs:
            rows_of = f"{self._longer} of {self._pairs} rows"
            yield f"the better completion is the longer one in {rows_of}: length could be what is learned"
        if self._never is not None:
            yield from self._never.lines()

    def _is_repeated(self, row: ReadRow) -> bool:
        prompt = row.group.prompt
        digest = _digest(prompt.token_ids, *(trajectory.token_ids for trajectory in row.group.trajectories))
        known = digest in self._seen
        self._seen.add(digest)
        return known

    def _compare_lengths(self, row: ReadRow) -> None:
        graded = [
            (t.score.total, len(t.token_ids)) for t in row.group.trajectories if t.score and t.score.total is not None
        ]
        if len(graded) > 1:
            (_, best), (_, worst) = max(graded, key=lambda one: one[0]), min(graded, key=lambda one: one[0])
            self._pairs += 1
            self._longer += best > worst


class NeverRight:
    """Whether prompts, each with its name, have no completion that could get a full reward."""

    def __init__(self, reward: Reward) -> None:
        self._leaves = list(reward.leaves())
        self._found: list[tuple[int, str]] = [(0, "")] * len(self._leaves)
        self._prompts = 0

    def look_at(self, where: str, prompt: Prompt) -> None:
        self._prompts += 1
        for place, leaf in enumerate(self._leaves):
            if (doubt := leaf.doubt(prompt)) is not None:
                count, first = self._found[place]
                self._found[place] = count + 1, first or f"{doubt}; the first is {where}"

    def lines(self) -> Iterator[str]:
        for count, first in self._found:
            if count:
                yield f"no completion can be right on {count} of {self._prompts} prompts: {first}"


class Shared:
    """Whether prompts that are measured are also trained on."""

    def __init__(self) -> None:
        self._trained: set[int] = set()
        self._sign = _Sign("held-out prompts are also trained on", self._is_trained)
        self._held_out = 0

    def train(self, rows: Sequence[ReadRow]) -> None:
        self._trained.update(_digest(row.group.prompt.token_ids) for row in rows)

    def measure(self, rows: Sequence[ReadRow]) -> None:
        self._held_out += len(rows)
        for row in rows:
            self._sign.look_at(row)

    def lines(self) -> Iterator[str]:
        """A line for the rows that were measured since this was last asked for."""
        if self._sign.count:
            yield f"{self._sign.count} of {self._held_out} {self._sign.what}; the first is {self._sign.first}"
        self._sign.count, self._sign.first, self._held_out = 0, "", 0

    def _is_trained(self, row: ReadRow) -> bool:
        return _digest(row.group.prompt.token_ids) in self._trained


def _checks(reading: Reading) -> Iterator[tuple[str, Callable[[ReadRow], bool]]]:
    yield "prompts end with a blank; tokens usually begin with it, so the completion begins unusually", _ends_blank
    yield "rows have a U+FFFD character, which stands for text that was decoded wrongly", _is_damaged
    if reading.chat:
        special = [*map(str, reading.tokenizer.convert_ids_to_tokens(sorted(reading.ends)))]
        yield "rows spell tokens in their texts that end turns or sequences there", partial(_spells, special=special)
        yield (
            "prompts lack the text of one of their messages: the chat template changes or leaves it out",
            _lacks_message,
        )
    else:
        yield "completions follow their prompts without a blank between two words", _runs_on
    if reading.reads == "demonstrations":
        yield "completions have no more than one token that is trained on", _trains_little
    if reading.reads == "preferences":
        for chosen, rejected in PAIR_SCORES:
            yield f"rows have a lower `{chosen}` than `{rejected}`", partial(_is_lower, lower=chosen, higher=rejected)


def _digest(*texts: Sequence[int]) -> int:
    """64 bits of a hash of token ids: all rows of a file are remembered by theirs."""
    digest = blake2b(digest_size=8)
    for ids in texts:
        digest.update(array("q", (len(ids), *ids)).tobytes())
    return int.from_bytes(digest.digest(), "big")


def _ends_blank(row: ReadRow) -> bool:
    prompt = row.group.prompt
    return not prompt.messages and prompt.text.endswith(" ")


def _is_damaged(row: ReadRow) -> bool:
    return any("\ufffd" in text for text in _texts(row))


def _spells(row: ReadRow, special: Sequence[str]) -> bool:
    return any(token in text for text in _row_texts(row.group.prompt.row) for token in special)


def _lacks_message(row: ReadRow) -> bool:
    prompt = row.group.prompt
    return any(
        str(message.get("content") or "").strip() not in prompt.text for message in prompt.messages if _is_text(message)
    )


def _runs_on(row: ReadRow) -> bool:
    text = row.group.prompt.text
    return any(text[-1:].isalnum() and trajectory.text[:1].isalpha() for trajectory in row.group.trajectories)


def _trains_little(row: ReadRow) -> bool:
    return any(sum(trajectory.loss_mask) <= 1 for trajectory in row.group.trajectories)


def _is_lower(row: ReadRow, *, lower: str, higher: str) -> bool:
    """Whether column ``lower`` of a row has a smaller number than column ``higher``."""
    low, high = row.group.prompt.row.get(lower), row.group.prompt.row.get(higher)
    return isinstance(low, Real) and isinstance(high, Real) and low < high


def _texts(row: ReadRow) -> Iterator[str]:
    yield row.group.prompt.text
    for trajectory in row.group.trajectories:
        yield trajectory.text


def _row_texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for part in value.values():
            yield from _row_texts(part)
    elif isinstance(value, list | tuple):
        for part in value:
            yield from _row_texts(part)


def _is_text(message: Message) -> bool:
    return isinstance(message.get("content"), str)
