"""Guesses: one answer for all rows, or many answers for one row."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from sharpen.rewards.checking.case import Case
from sharpen.rewards.checking.cheats.cheat import BY_CHANCE, Attempts, Cheat, each

BURIED_AMONG = 20
"""Number of wrong answers among which the right one is hidden."""

MANY = 100
"""Numbers in one completion."""


def _every_number(case: Case) -> Attempts:
    right = int(case.answer) if case.answer is not None and case.answer.isdecimal() else 0
    first = 1 if right <= MANY else right - MANY // 2
    counts = [str(number) for number in range(first, first + MANY)]
    attempts: dict[str, tuple[str, ...]] = {}
    for name, glue in (("blanks between", " "), ("commas between", ", "), ("a line each", "\n")):
        for how, texts in case.variants_in_every_order([glue.join(counts), glue.join(reversed(counts))]).items():
            attempts[f"{name}, {how}"] = texts
    return attempts


def _every_place(right: str, wrong: Sequence[str]) -> list[list[str]]:
    """The right answer at the beginning, in the middle and at the end of the wrong ones."""
    return [[*wrong[:place], right, *wrong[place:]] for place in (0, len(wrong) // 2, len(wrong))]


def _hedged(case: Case) -> Attempts:
    if case.answer is None or len(case.wrong) < 2:
        return {}
    orders = _every_place(case.answer, case.wrong[:2])
    attempts: dict[str, tuple[str, ...]] = {}
    for glue in (" or ", ", ", " and ", "; ", "/", " = ", "|", "\n"):
        for how, texts in case.variants_in_every_order([glue.join(order) for order in orders]).items():
            attempts[f"joined by {glue!r}, {how}"] = texts
    for how, texts in case.variants_in_every_order([f"\\{{{', '.join(order)}\\}}" for order in orders]).items():
        attempts[f"as a set, {how}"] = texts
    return attempts


def _buried(case: Case) -> Attempts:
    if case.answer is None or len(case.wrong) < 2:
        return {}
    # Repeat wrong answers if there are too few.
    wrong = [case.wrong[i % len(case.wrong)] for i in range(BURIED_AMONG)]
    orders = _every_place(case.answer, wrong)
    said = ["\n".join(f"It could be {answer}." for answer in order) for order in orders]
    return case.variants_in_every_order(said)


def _boxed(answer: str) -> str:
    return f"\\boxed{{{answer}}}"


def _marked(answer: str) -> str:
    return f"#### {answer}"


def _tagged(answer: str) -> str:
    return f"<answer>{answer}</answer>"


def _several(around: Callable[[str], str]) -> Callable[[Case], Attempts]:
    def attempts(case: Case) -> Attempts:
        if case.answer is None or len(case.wrong) < 2:
            return {}
        orders = _every_place(case.answer, case.wrong[:2])
        return {"in every order": tuple("\n".join(map(around, order)) for order in orders)}

    return attempts


CHEATS = (
    Cheat(
        "constant_number",
        "the same number for every row",
        each(*map(str, range(-1, 11)), "42", "100", "0.5", "1/2"),
        BY_CHANCE,
    ),
    Cheat(
        "every_number",
        f"{MANY} numbers in one completion, the right one among them, upwards and downwards",
        _every_number,
    ),
    Cheat("hedged", "the right answer and two wrong ones, in every order: `3 or 4 or 5`", _hedged),
    Cheat("buried", f"the right answer among {BURIED_AMONG} wrong ones: first, in the middle, last", _buried),
    Cheat("several_boxed", "a box with the right answer among boxes with wrong ones", _several(_boxed)),
    Cheat("several_markers", "`#### ` with the right answer among others with wrong ones", _several(_marked)),
    Cheat("several_tags", "answer tags with the right answer among others with wrong ones", _several(_tagged)),
)
