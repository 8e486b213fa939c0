"""Samples completions of held-out prompts and measures them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from sharpen.errors import RewardError
from sharpen.evaluation.estimators import Estimate, estimate, majority_at_k, pass_at_k
from sharpen.rewards.reward import Reward
from sharpen.rewards.scoring import score_groups
from sharpen.rollout.engine import Engine, Sampling
from sharpen.rollout.generation import Interactions, generate
from sharpen.runs.samples import sample_rows
from sharpen.system.seeds import stream_seed
from sharpen.types import Group, Prompt

if TYPE_CHECKING:
    from pandas import DataFrame


@dataclass(frozen=True, slots=True, repr=False)
class Evaluation:
    """The measures, each a mean over prompts with its 95 % bootstrap interval, and the completions behind them.

    ``right`` marks the sampled completions that are right, and ``extracted`` has the answer that the reward extracts
    from each, None where there is none. They are empty where completions of the data were measured, ``extracted`` also
    where the reward extracts nothing.
    """

    measures: dict[str, Estimate]
    groups: tuple[Group, ...]
    right: tuple[tuple[bool, ...], ...] = ()
    extracted: tuple[tuple[str | None, ...], ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Means and intervals; the ends are None where there is a single prompt and thus no interval."""
        return {
            name: {
                "mean": e.mean,
                "low": None if np.isnan(e.low) else e.low,
                "high": None if np.isnan(e.high) else e.high,
            }
            for name, e in self.measures.items()
        }

    @property
    def table(self) -> DataFrame:
        """The mean and interval of each measure; the ends are NaN where there is no interval."""
        # Imported here: it takes half a second, and the command line does not need it.
        import pandas

        return pandas.DataFrame({name: asdict(e) for name, e in self.measures.items()}).T

    @property
    def answers(self) -> DataFrame:
        """Every answer with its reward, and whether it is right."""
        import pandas

        turns = any(len(t.messages) > 1 for group in self.groups for t in group.trajectories)
        return pandas.DataFrame(self.answer_rows(conversations=turns))

    def answer_rows(self, *, conversations: bool) -> list[dict[str, Any]]:
        """The columns of a sample file for each answer, whether it is ``right``, and the ``answer`` that it gives."""
        rows = sample_rows(self.groups, conversations=conversations)
        right: list[Any] = [mark for marks in self.right for mark in marks]
        # A reward of a user's own may extract numbers, and a column has one type.
        answers: list[Any] = [None if one is None else str(one) for of_group in self.extracted for one in of_group]
        for name, values in {"right": right, "answer": answers}.items():
            rows = [{**row, name: value} for row, value in zip(rows, values, strict=True)] if values else rows
        return rows

    def __repr__(self) -> str:
        shown = (
            f"{name} {e.mean:.4g}" + ("" if np.isnan(e.low) else f" [{e.low:.4g}, {e.high:.4g}]")
            for name, e in self.measures.items()
        )
        return f"Evaluation({', '.join(shown)})"

    def _repr_html_(self) -> str:
        return str(self.table.to_html(float_format="{:.4g}".format, na_rep=""))


def evaluate(
    engine: Engine,
    prompts: Sequence[Prompt],
    reward: Reward,
    *,
    n: int,
    ks: Sequence[int],
    sampling: Sampling,
    seed: int,
    threshold: float = 1.0,
    max_reward_failures: float = 0.1,
    interaction: Interactions = None,
) -> Evaluation:
    """Measure a policy: ``n`` completions per prompt, right where the reward is at least ``threshold``.

    Measures ``pass@k`` and, if the reward extracts answers, ``maj@k`` for each k; ``reward``, and its parts if there
    are several; ``length`` in tokens and ``truncated``. The random numbers depend on the seed alone, so two policies
    are measured with the same ones.

    With several data sources, the measures are over the prompts of all, and of each again as ``<source>/<measure>``.

    Raises RewardError if the reward applies to no prompt, of a source if there are several.
    """
    draw_ids = [range(i * n, (i + 1) * n) for i in range(len(prompts))]
    completions = generate(engine, prompts, draw_ids, sampling, stream_seed(seed, "evaluation"), interaction)
    groups = [Group(p, c) for p, c in zip(prompts, completions, strict=True)]
    groups, _ = score_groups(reward, groups, max_failure_rate=max_reward_failures)
    right = tuple(tuple(s.total is not None and s.total >= threshold for s in g.scores) for g in groups)
    extracted = _extracted(groups, reward)

    measures = _measures(groups, right, extracted, reward, ks, seed)
    for source in sources_of(groups):
        places = [i for i, group in enumerate(groups) if group.prompt.source == source]
        own, own_right = [groups[i] for i in places], [right[i] for i in places]
        own_extracted = [extracted[i] for i in places] if extracted else ()
        of_source = _measures(own, own_right, own_extracted, reward.of_source(source), ks, seed)
        measures |= {f"{source}/{name}": measure for name, measure in of_source.items()}
    return Evaluation(measures, tuple(groups), right, extracted)


def sources_of(groups: Sequence[Group]) -> list[str]:
    """The names of the data sources that these groups come from; none in a run with only one."""
    return [name for name in dict.fromkeys(group.prompt.source for group in groups) if name]


def _extracted(groups: Sequence[Group], reward: Reward) -> tuple[tuple[str | None, ...], ...]:
    """The answer that the reward of each prompt's source extracts from each completion; empty if none extracts any."""
    of_groups = [reward.of_source(group.prompt.source) for group in groups]
    if not any(one.has_answer for one in of_groups):
        return ()
    return tuple(
        tuple(one.answer(t.text) if one.has_answer else None for t in group.trajectories)
        for group, one in zip(groups, of_groups, strict=True)
    )


def _measures(
    groups: Sequence[Group],
    right: Sequence[Sequence[bool]],
    extracted: Sequence[Sequence[str | None]],
    reward: Reward,
    ks: Sequence[int],
    seed: int,
) -> dict[str, Estimate]:
    values: dict[str, list[float] | np.ndarray] = {}
    for k in ks:
        values[f"pass@{k}"] = pass_at_k([len(row) for row in right], [sum(row) for row in right], k)
    if reward.has_answer:
        for k in ks:
            if k > 1:
                values[f"maj@{k}"] = majority_at_k(extracted, right, k)
    totals = [[s.total for s in g.scores if s.total is not None] for g in groups]
    if not any(totals):
        raise RewardError(f"reward {reward.name!r} applies to none of the {len(groups)} held-out prompts{_of(groups)}")
    values["reward"] = [float(np.mean(t)) for t in totals if t]
    parts = sorted({name for g in groups for s in g.scores for name in s.parts})
    if len(parts) > 1:
        for part in parts:
            per_prompt = [[v for s in g.scores if (v := s.parts.get(part)) is not None] for g in groups]
            if any(per_prompt):
                values[f"reward/{part}"] = [float(np.mean(v)) for v in per_prompt if v]
    values["length"] = [float(np.mean([c.drawn for c in g.trajectories])) for g in groups]
    values["truncated"] = [float(np.mean([c.truncated for c in g.trajectories])) for g in groups]
    return {name: estimate_measure(name, np.asarray(v), seed) for name, v in values.items()}


def _of(groups: Sequence[Group]) -> str:
    sources = sources_of(groups)
    return f" of source {sources[0]}" if len(sources) == 1 else ""


def estimate_measure(name: str, values_P: np.ndarray, seed: int = 0) -> Estimate:
    """The mean over prompts with its 95 % bootstrap interval, resampled with a seed that depends on the measure."""
    return estimate(values_P, seed=stream_seed(seed, name) % 2**32)
