"""The reasons why a reward is not sound, one line each."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

from sharpen.rewards.checking.allowed import NO_REFERENCE
from sharpen.rewards.checking.probe import Trial
from sharpen.rewards.checking.report import CheatResult, References
from sharpen.rewards.reward import excerpt


def findings_of(
    references: References,
    doubts: Sequence[tuple[str, str]],
    results: Sequence[CheatResult],
    stops: Sequence[Trial],
    allow: Collection[str],
) -> Iterator[str]:
    if references.failed:
        first = references.failed[0]
        yield (
            f"{len(references.failed)} of {references.tried} references do not get a full reward; the first, "
            f"{first.where}: {excerpt(first.text)} ({worth(first)})"
        )
    if doubts:
        where, doubt = doubts[0]
        yield f"no completion can be right on {len(doubts)} of the rows: {doubt}; the first is {where}"
    if NO_REFERENCE not in allow:
        if references.origin is None:
            yield (
                "no reference completions are known, so nothing shows that right answers are rewarded: set "
                f"reward_check.reference (--reference) to a column of them, or allow {NO_REFERENCE}"
            )
        elif references.missing:
            yield (
                f"{len(references.missing)} rows have no reference; the first is {references.missing[0]}. Complete the "
                f"data, or allow {NO_REFERENCE}"
            )
    for result in results:
        if result.passes and not result.allowed:
            yield f"{result.cheat.name} passes on {result.accepted} of {result.tried} rows: {result.cheat.why}"
    if stops:
        first = stops[0]
        shown = f"{first.where}: {excerpt(first.text)}: {first.stops}"
        yield f"{len(stops)} completions would stop a run; the first, {shown}"


def worth(trial: Trial) -> str:
    """The reward of a completion, or why it has none."""
    if trial.stops is not None or trial.score.error is not None:
        return trial.stops or str(trial.score.error)
    return "the reward does not apply" if trial.score.total is None else f"reward {trial.score.total:.17g}"
