"""Held-out completions of several sources: each source's measures are those that it has alone."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from sharpen.methods import resolve_method
from sharpen.models.forward import MicrobatchLimits
from sharpen.models.reference import frozen
from sharpen.training.annotate import Annotator
from sharpen.training.held_out import measure_groups
from sharpen.training.reference import Reference
from sharpen.types import Group, Score, StepValue, single_turn
from tiny_models import loaded_scorer, make_prompt, tiny_policy

LIMITS = MicrobatchLimits(24, shared_prompt=True)
ROWS = [
    ("short", "1+2=", ("#3", "#4", "1+2=3#3"), (1, 0, 2)),
    ("long", "7-7=", ("7-7=0#0", "7-7=7#7"), (1, 0)),
    ("short", "4+4=", ("#8", "#9"), (2, 0)),
    ("long", "15-12=", ("15-12=13#13", "#3"), (0, 1)),
]


def groups_of(model: Any, *, marked: bool = False) -> list[Group]:
    """Completions with grades; or each with a marked step at its first token, and one at its last if it has a grade."""
    groups = []
    for source, asked, answers, grades in ROWS:
        prompt = replace(make_prompt(model, asked), source=source)
        trajectories = []
        for answer, grade in zip(answers, grades, strict=True):
            ids = tuple(model.tokenizer(answer)["input_ids"])
            steps = (StepValue(0, 1.0), *([StepValue(len(ids) - 1, 0.0)] if grade else [])) if marked else ()
            trajectories.append(single_turn(prompt.token_ids, ids, answer, score=Score(float(grade), steps=steps)))
        groups.append(Group(prompt, tuple(trajectories)))
    return groups


def unsourced(groups: list[Group], source: str | None = None) -> list[Group]:
    own = [group for group in groups if source in (None, group.prompt.source)]
    return [replace(group, prompt=replace(group.prompt, source="")) for group in own]


@pytest.mark.parametrize("name", ["reward_model", "process_reward_model", "dpo", "sft", "sft_per_sequence"])
def test_each_source_is_measured_as_if_alone_and_all_as_before(name: str, tmp_path: Any) -> None:
    reference = None
    if name == "dpo":
        method = resolve_method({"name": "dpo", "beta": 0.05})
        model: Any = tiny_policy(seed=1)
        reference = Reference(frozen(tiny_policy(seed=2)), model, method.kl_settings)
        groups = groups_of(model)
    elif name.startswith("sft"):
        method = resolve_method({"name": "sft", "reduction": "per_sequence"} if "_" in name else "sft")
        model = tiny_policy(seed=1)
        # A demonstration is one completion of a prompt, without a grade.
        groups = [replace(g, trajectories=(replace(g.trajectories[-1], score=None),)) for g in groups_of(model)]
    else:
        method = resolve_method(name)
        model = loaded_scorer(tmp_path / "model", "token" if "process" in name else "sequence")
        groups = groups_of(model, marked="process" in name)
    annotator = Annotator({method.objectives()[0].model: model}, reference, 1.0, LIMITS)
    found = measure_groups(method, annotator, groups)
    assert {name: e for name, e in found.items() if "/" not in name} == measure_groups(
        method, annotator, unsourced(groups)
    )
    losses = []
    for source in ("short", "long"):
        alone = measure_groups(method, annotator, unsourced(groups, source))
        own = {name.removeprefix(f"{source}/"): e for name, e in found.items() if name.startswith(f"{source}/")}
        assert own.keys() == alone.keys()
        for measure, estimate in own.items():
            expected = alone[measure]
            assert (estimate.mean, estimate.low, estimate.high) == pytest.approx(
                (expected.mean, expected.low, expected.high), rel=1e-5
            ), (source, measure)
        losses.append(own["loss"].mean)
    assert abs(losses[0] - losses[1]) > 1e-4


def test_the_loss_of_all_weights_sources_as_the_method_weights_tokens() -> None:
    """SFT's mean over tokens: of 3 and 9 tokens, as many times each source's own mean."""
    policy = tiny_policy(seed=1)
    short, long = (replace(make_prompt(policy, "1+2="), source=source) for source in ("short", "long"))
    groups = [
        Group(short, (single_turn(short.token_ids, tuple(policy.tokenizer("#3;")["input_ids"]), "#3;"),)),
        Group(long, (single_turn(long.token_ids, tuple(policy.tokenizer("1+2=3#3;;")["input_ids"]), "1+2=3#3;;"),)),
    ]
    assert [len(group.trajectories[0].token_ids) for group in groups] == [3, 9]
    found = measure_groups(resolve_method("sft"), Annotator({"policy": policy}, None, 1.0, LIMITS), groups)
    own = found["short/loss"].mean, found["long/loss"].mean
    assert found["loss"].mean == pytest.approx((3 * own[0] + 9 * own[1]) / 12, rel=1e-5)
