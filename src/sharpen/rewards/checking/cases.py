"""Rows → cases: references, the form of answers, and wrong answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TypeVar

from sharpen.data.rows import Rows
from sharpen.rewards.checking.case import FORMS, AnswerForm, Case, wrong_answers
from sharpen.rewards.checking.probe import Probe
from sharpen.rewards.checking.references import Origin, ReferenceCompletion, origins
from sharpen.rewards.checking.report import References
from sharpen.rewards.text.extraction import normalise
from sharpen.types import Row

TRIED_FOR_A_CHOICE = 20
"""Number of rows on which origins of references, and forms of answers, are compared."""

SHORT_CHARACTERS = 200
"""A single-line completion up to this length is its own answer if the reward parses none in it."""

PLACEHOLDER = "answer"

Choice = TypeVar("Choice")


def spaced(rows: Rows, at_most: int) -> tuple[Rows, list[str]]:
    """At most ``at_most`` rows, evenly spaced, and the names of these rows in messages."""
    count = min(len(rows), at_most)
    indices = [i * len(rows) // count for i in range(count)]
    return rows.part(indices), [rows.where(i) for i in indices]


def with_references(
    probe: Probe, cases: Sequence[Case], columns: Sequence[str], given: str | Callable[[Row], str | None] | None
) -> tuple[list[Case], References]:
    """The cases with references from the origin that is accepted most often, and the results for these."""
    origin = _best(probe, origins(probe.reward, columns, given), cases, _completion_of)
    if origin is None:
        return list(cases), References(None, 0)
    referred = [_with_reference(probe, case, origin) for case in cases]
    trials = [probe(case.where, case.prompt, case.reference) for case in referred if case.reference is not None]
    return referred, References(
        origin=origin.name,
        tried=len(trials),
        failed=tuple(trial for trial in trials if not trial.full),
        missing=tuple(case.where for case in referred if case.reference is None),
    )


def with_wrong_answers(probe: Probe, cases: Sequence[Case]) -> list[Case]:
    """The cases with answers of other rows, and with the form in which the reward parses a bare answer."""
    form = _form(probe, [case for case in cases if case.answer is not None])
    answers = list(dict.fromkeys(case.answer for case in cases if case.answer is not None))
    changed = []
    for i, case in enumerate(cases):
        further = [*cases[i + 1 :], *cases[:i]]
        others = [other.reference for other in further if other.reference is not None and _differs(case, other)]
        wrong = () if case.answer is None else wrong_answers(case.answer, answers)
        changed.append(replace(case, form=form, others=tuple(dict.fromkeys(others)), wrong=wrong))
    return changed


def _best(
    probe: Probe, choices: Sequence[Choice], cases: Sequence[Case], completion: Callable[[Choice, Case], str | None]
) -> Choice | None:
    """The choice that is accepted on most rows, the first of equals; None if none gives a completion."""
    best, most = None, -1
    some = cases[:: max(1, len(cases) // TRIED_FOR_A_CHOICE)][:TRIED_FOR_A_CHOICE]
    for choice in choices:
        texts = [(case, text) for case in some if (text := completion(choice, case)) is not None]
        accepted = sum(probe(case.where, case.prompt, text).full for case, text in texts)
        if texts and accepted > most:
            best, most = choice, accepted
        if most == len(some):
            break
    return best


def _completion_of(origin: Origin, case: Case) -> str | None:
    found = origin.of(case.prompt.row)
    return None if found is None else found.completion


def _with_reference(probe: Probe, case: Case, origin: Origin) -> Case:
    found = origin.of(case.prompt.row)
    return case if found is None else replace(case, reference=found.completion, answer=_answer(probe, found))


def _answer(probe: Probe, reference: ReferenceCompletion) -> str | None:
    """The bare answer in a reference, verbatim."""
    if reference.answer is not None:
        return reference.answer
    text, read = reference.completion, probe.reward.answer(reference.completion)
    if read is not None:
        start = text.casefold().rfind(read.casefold())
        return text[start : start + len(read)] if start >= 0 else read
    return text if len(text) <= SHORT_CHARACTERS and "\n" not in text else None


def _form(probe: Probe, cases: Sequence[Case]) -> AnswerForm | None:
    """A form in which the reward parses answers: that of the references, or a common one.

    None if no form is ever accepted, or if the reward accepts any content in it.
    """
    derived = [form for case in cases[:1] if (form := _form_of(case)) is not None]
    form = _best(probe, [*derived, *FORMS], cases, lambda form, case: form.around(case.answer or ""))
    if form is None or not any(probe(case.where, case.prompt, form.around(case.answer or "")).full for case in cases):
        return None
    blind = all(probe(case.where, case.prompt, form.around(PLACEHOLDER)).full for case in cases)
    return None if blind else form


def _form_of(case: Case) -> AnswerForm | None:
    """The text around the answer in a reference; None if that contains the answer too, as worked solutions do."""
    if case.reference is None or case.answer is None:
        return None
    before, found, after = case.reference.rpartition(case.answer)
    return AnswerForm(before, after) if found and case.answer not in before else None


def _differs(case: Case, other: Case) -> bool:
    if case.answer is None or other.answer is None:
        return case.reference != other.reference
    return normalise(case.answer) != normalise(other.answer)
