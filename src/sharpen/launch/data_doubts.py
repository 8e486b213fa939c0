"""What looks wrong in data that can be read: signs of mistakes, each with its first row."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
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


def doubts(rows: Sequence[ReadRow], reading: Reading) -> Iterator[str]:
    """One line for each thing that looks wrong."""
    checks: list[tuple[str, Callable[[ReadRow], bool]]] = [
        ("prompts end with a blank; tokens usually begin with it, so the completion begins unusually", _ends_blank),
        ("rows have a U+FFFD character, which stands for text that was decoded wrongly", _is_damaged),
    ]
    if reading.chat:
        special = [*map(str, reading.tokenizer.convert_ids_to_tokens(sorted(reading.ends)))]
        checks += [
            (
                "rows spell tokens in their texts that end turns or sequences there",
                lambda row: _spells(row, special),
            ),
            (
                "prompts lack the text of one of their messages: the chat template changes or leaves it out",
                _lacks_message,
            ),
        ]
    else:
        checks.append(("completions follow their prompts without a blank between two words", _runs_on))
    if reading.reads == "demonstrations":
        checks.append(("completions have no more than one token that is trained on", _trains_little))
    if reading.reads == "preferences":
        checks += [
            (f"rows have a lower `{chosen}` than `{rejected}`", partial(_is_lower, lower=chosen, higher=rejected))
            for chosen, rejected in PAIR_SCORES
        ]
    for what, applies in checks:
        found = [row.where for row in rows if applies(row)]
        if found:
            yield f"{len(found)} of {len(rows)} {what}; the first is {found[0]}"
    yield from _repeated(rows)
    if reading.reads == "preferences":
        yield from _longer_is_better(rows)
    if reading.reward is not None:
        yield from never_right([(row.where, row.group.prompt) for row in rows], reading.reward)


def shared(trained: Sequence[ReadRow], held_out: Sequence[ReadRow]) -> Iterator[str]:
    """Whether prompts that are measured are also trained on."""
    known = {row.group.prompt.token_ids for row in trained}
    found = [row.where for row in held_out if row.group.prompt.token_ids in known]
    if found:
        yield f"{len(found)} of {len(held_out)} held-out prompts are also trained on; the first is {found[0]}"


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


def _repeated(rows: Sequence[ReadRow]) -> Iterator[str]:
    seen: set[tuple[tuple[int, ...], ...]] = set()
    repeated = []
    for row in rows:
        key = (row.group.prompt.token_ids, *(trajectory.token_ids for trajectory in row.group.trajectories))
        if key in seen:
            repeated.append(row.where)
        seen.add(key)
    if repeated:
        yield f"{len(repeated)} of {len(rows)} rows repeat an earlier one; the first is {repeated[0]}"


def _longer_is_better(rows: Sequence[ReadRow]) -> Iterator[str]:
    pairs = []
    for row in rows:
        graded = [
            (t.score.total, len(t.token_ids)) for t in row.group.trajectories if t.score and t.score.total is not None
        ]
        if len(graded) > 1:
            (_, best), (_, worst) = max(graded, key=lambda one: one[0]), min(graded, key=lambda one: one[0])
            pairs.append((best, worst))
    longer = sum(best > worst for best, worst in pairs)
    if len(pairs) >= FEW_PAIRS and longer > MUCH_LONGER * len(pairs):
        rows_of = f"{longer} of {len(pairs)} rows"
        yield f"the better completion is the longer one in {rows_of}: length could be what is learned"


def never_right(prompts: Sequence[tuple[str, Prompt]], reward: Reward) -> Iterator[str]:
    """Whether prompts, each with its name, have no completion that could get a full reward."""
    for leaf in reward.leaves():
        found = [(where, doubt) for where, prompt in prompts if (doubt := leaf.doubt(prompt)) is not None]
        if found:
            where, doubt = found[0]
            yield f"no completion can be right on {len(found)} of {len(prompts)} prompts: {doubt}; the first is {where}"


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
