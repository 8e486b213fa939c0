"""Completions without content of their own."""

from __future__ import annotations

from sharpen.rewards.checking.case import Case
from sharpen.rewards.checking.cheats.cheat import BY_CHANCE, Attempts, Cheat, each, plainly

VERY_LONG_CHARACTERS = 20_000


def _echo(case: Case) -> Attempts:
    return {**case.variants(case.question), "twice": (f"{case.question}\n{case.question}",)}


def _columns(case: Case) -> Attempts:
    names = sorted(case.prompt.row)
    return {f"{name!r}, {how}": texts for name in names for how, texts in case.variants(name).items()}


_PHRASE = "Let me think about this step by step, and go through all of it once more. "
_LONG = {
    "words": _PHRASE * (VERY_LONG_CHARACTERS // len(_PHRASE)),
    "one letter": "a" * VERY_LONG_CHARACTERS,
    "blanks, then a letter": " " * VERY_LONG_CHARACTERS + "a",
    "opening brackets": "(" * VERY_LONG_CHARACTERS,
}

CHEATS = (
    Cheat("empty", "an empty completion", plainly("")),
    Cheat("blank", "only blanks and line breaks", plainly(" ", "\n\n\n", "\t \n")),
    Cheat("punctuation", "only punctuation", each(".", ":", "?", "!", "-", "...", "$$", "{}", "|")),
    Cheat("prompt_echo", "the prompt, repeated", _echo),
    Cheat("column_name", "the name of a column of the data, such as `answer`", _columns),
    Cheat(
        "no_answer",
        "a refusal, or an opening without an answer",
        each(
            "I do not know.", "I cannot answer this.", "Let us solve this step by step.", "The answer is", "Yes.", "No."
        ),
        BY_CHANCE,
    ),
    Cheat(
        "very_long",
        f"{VERY_LONG_CHARACTERS:,} characters without an answer",
        lambda case: {name: (text,) for name, text in _LONG.items()},
    ),
)
