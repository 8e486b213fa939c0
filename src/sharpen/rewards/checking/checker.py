"""Checks what a reward accepts, before training."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any

from transformers import PreTrainedTokenizerBase

from sharpen.data.formats import user_rows
from sharpen.data.rows import Rows
from sharpen.errors import DataError
from sharpen.rewards.checking.allowed import NO_REFERENCE, refuse_unknown
from sharpen.rewards.checking.case import Case
from sharpen.rewards.checking.cases import spaced, with_references, with_wrong_answers
from sharpen.rewards.checking.cheats import CHEATS, Cheat
from sharpen.rewards.checking.cheats.code import CHEATS as CODE_CHEATS
from sharpen.rewards.checking.cheats.wrong import CHEATS as WRONG_ANSWERS
from sharpen.rewards.checking.findings import findings_of
from sharpen.rewards.checking.probe import HangsError, Probe, Trial
from sharpen.rewards.checking.prompts import asked, questions
from sharpen.rewards.checking.report import CheatResult, References, RewardReport, timing_of
from sharpen.rewards.registry import RewardSpec, resolve_reward
from sharpen.suggest import did_you_mean
from sharpen.types import Prompt, Row


def check(
    reward: RewardSpec,
    rows: Any,
    *,
    reference: str | Callable[[Row], str | None] | None = None,
    allow: Collection[str] = (),
    at_most: int = 100,
    cheat_at_most: int = 25,
    threshold: float = 1.0,
    timeout_s: float = 10.0,
    tokenizer: PreTrainedTokenizerBase | None = None,
    prompts: Callable[[Rows], Sequence[Prompt]] = questions,
    say: Callable[[str], None] = lambda text: None,
) -> RewardReport:
    """Scores right answers, wrong answers and cheats with a reward.

    Right and wrong answers are tried on ``at_most`` rows, evenly spaced, and the many cheats on ``cheat_at_most`` of
    these.

    A completion is accepted if its reward is at least ``threshold``. ``reference`` is a column of completions that
    should be accepted, or a function that returns one for a row; by default references come from the reward or the data
    (see `sharpen.rewards.checking.references.origins`). ``allow`` names cheats that may pass. ``tokenizer`` is the
    policy's, for rewards that read tokens; ``prompts`` makes prompts from rows, by default of their text only. A call
    of the reward times out after ``timeout_s``, in the main thread only; after three timeouts the check ends with the
    results so far. ``say`` receives progress messages.

    The report has findings if a reference is not accepted, if a cheat passes that is not allowed, or if a completion
    would stop a run.

    Raises:
        SharpenError: the reward or the rows are invalid, or ``allow`` has an unknown name.
    """
    refuse_unknown(allow)
    reward = resolve_reward(reward)
    allow = {*allow, *(name for leaf in reward.leaves() for name in leaf.allowed_cheats)}
    part, names = spaced(user_rows(rows, {}, "prompts"), at_most)
    reward.check_columns(part.columns, part.name)
    if isinstance(reference, str) and reference not in part.columns:
        raise DataError(
            f"{part.name}: no column {reference!r} with references.{did_you_mean(reference, part.columns)} "
            f"Its columns are: {', '.join(part.columns)}"
        )
    if tokenizer is not None:
        reward.use_tokenizer(tokenizer)
    probe = Probe(reward, threshold=threshold, tokenizer=tokenizer, timeout_s=timeout_s)
    cases = [Case(where, prompt, asked(prompt.row)) for where, prompt in zip(names, prompts(part), strict=True)]
    references = References(None, 0)
    results: list[CheatResult] = []
    gave_up: list[str] = []
    say("references: the data's own answers")
    try:
        cases, references = with_references(probe, cases, part.columns, reference)
        cases = with_wrong_answers(probe, cases)
        some = cases[:: -(-len(cases) // cheat_at_most)]
        for result in _results(probe, cases, some, allow, say):
            results.append(result)
    except HangsError as error:
        gave_up.append(f"the check ended early: {error}")
        allow = {*allow, NO_REFERENCE}  # not all rows were searched for references
    doubts = [
        (case.where, doubt)
        for case in cases
        for leaf in reward.leaves()
        if (doubt := leaf.doubt(case.prompt)) is not None
    ]
    trials = list(probe.trials.values())
    stops = tuple(trial for trial in trials if trial.stops is not None)
    return RewardReport(
        reward=reward.name,
        data=part.name,
        rows=len(cases),
        threshold=threshold,
        references=references,
        results=tuple(results),
        timing=timing_of(trials),
        errors=tuple(trial for trial in trials if trial.score.error is not None),
        stops=stops,
        findings=(*gave_up, *findings_of(references, doubts, results, stops, allow)),
    )


def _results(
    probe: Probe, cases: Sequence[Case], some: Sequence[Case], allow: Collection[str], say: Callable[[str], None]
) -> Iterator[CheatResult]:
    too_dangerous: set[str] = set()
    for cheat in CHEATS.values():
        if cheat.name in too_dangerous:
            continue
        say(f"{cheat.name}: {cheat.why}")
        result = _result(probe, cases if cheat in WRONG_ANSWERS else some, cheat, allowed=cheat.name in allow)
        if cheat.effect is not None and result.passes:
            # Code that runs in this process could end it.
            too_dangerous = {other.name for other in CODE_CHEATS}
        yield result


def _result(probe: Probe, cases: Sequence[Case], cheat: Cheat, *, allowed: bool) -> CheatResult:
    tried: dict[str, int] = {}
    accepted: dict[str, list[Trial]] = {}
    totals: list[float] = []
    for case in cases:
        for label, texts in cheat.attempts(case).items():
            trials = [probe(case.where, case.prompt, text) for text in texts]
            if not all(trial.exact for trial in trials):
                continue  # the policy cannot generate it
            totals += [trial.score.total for trial in trials if trial.score.total is not None]
            tried[label] = tried.get(label, 0) + 1
            if cheat.effect() if cheat.effect is not None else all(trial.full for trial in trials):
                accepted.setdefault(label, []).append(trials[0])
    best = max(accepted, key=lambda label: len(accepted[label]) / tried[label], default=None)
    return CheatResult(
        cheat=cheat,
        attempt=best,
        accepted=0 if best is None else len(accepted[best]),
        tried=max(tried.values(), default=0) if best is None else tried[best],
        example=None if best is None else accepted[best][0],
        highest=max(totals, default=None),
        allowed=allowed,
    )
