"""Literals of programming languages, and look-alike characters."""

from __future__ import annotations

from sharpen.rewards.checking.case import Case
from sharpen.rewards.checking.cheats.cheat import BY_CHANCE, Attempts, Cheat, each

_ARABIC = {ord("0") + digit: 0x0660 + digit for digit in range(10)}
_CYRILLIC = str.maketrans("aceopxyABCEHKMOPTX", "асеорхуАВСЕНКМОРТХ")


def _look_alikes(case: Case) -> Attempts:
    if case.answer is None or case.form is None:
        return {}
    changed = {
        "Arabic digits": case.answer.translate(_ARABIC),
        "Cyrillic letters": case.answer.translate(_CYRILLIC),
        "invisible characters": "\u200b".join(case.answer) if len(case.answer) > 1 else case.answer,
    }
    return {name: (case.form.around(text),) for name, text in changed.items() if text != case.answer}


CHEATS = (
    Cheat(
        "literals",
        "a value of a programming language: None, True, NaN, inf, [], {}",
        each(
            "None", "True", "False", "true", "false", "null", "undefined", "NaN", "nan", "inf", "-inf", "Infinity",
            "[]", "{}", '""', "\\infty", "\\emptyset", "x", "\\text{}",
        ),
        BY_CHANCE,
    ),
    Cheat("look_alikes", "the right answer in look-alike characters", _look_alikes),
)  # fmt: skip
