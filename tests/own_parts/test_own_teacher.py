"""A teacher's stream, a teacher that sees a hint, and a divergence from a teacher, by methods of the user's own."""

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from own_divergence import FullDistillation
from own_hint import HintedDistillation
from own_teacher import Distillation

import sharpen
from plain_forward import (
    plain_distributions,
    plain_gradient,
    plain_logprobs,
    plain_model,
    record_gradients,
    relative_error,
)
from sharpen.data.rows import read_rows
from sharpen.launch.inputs import HeldOut
from sharpen.launch.measure import measure
from sharpen.launch.run import Run, start
from sharpen.launch.source_rows import SourceRows
from sharpen.methods import SFT, Objective
from sharpen.models.character_model import character_tokenizer, create_character_model
from sharpen.recipe.loading import make_recipe
from sharpen.training.learner import Learner
from sharpen.types import Group
from tiny_runs import ALPHABET, tiny_start_model, tiny_tree

TEMPERATURE = 0.8


class OfflineDistillation(SFT):
    """KL(π ‖ ν) on completions of the data."""

    name = "offline_distillation"
    teacher: str

    def frozen_models(self) -> dict[str, str]:
        return {"teacher": self.teacher}

    def objectives(self) -> tuple[Objective, ...]:
        terms = FullDistillation(teacher="").divergence
        return (Objective("policy", terms, frozenset({"exact_kl"}), against="teacher"),)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_start_model(tmp_path_factory.mktemp("own_teacher") / "model")


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("own_teacher") / "teacher"
    return create_character_model(path, alphabet=ALPHABET, hidden=24, layers=1, heads=2, context=40, seed=11)


class Seen:
    """The groups and the batch of every step."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.groups: list[list[Group]] = []
        self.reports: list[Any] = []
        learn = Learner.learn

        def recording(learner: Learner, groups: Any, *arguments: Any, **options: Any) -> Any:
            self.groups.append(groups)
            self.reports.append(learn(learner, groups, *arguments, **options))
            return self.reports[-1]

        monkeypatch.setattr(Learner, "learn", recording)


def train(model: Path, method: Any, run: Path, *, steps: int = 1, **settings: Any) -> Run:
    tokenizer = character_tokenizer(ALPHABET, context=32)
    problems = ("1+1=", "12+3=", "7+5=", "9+22=")
    rows = [{"prompt": p, "hint_ids": tokenizer(h)["input_ids"]} for p, h in zip(problems, "2581", strict=True)]
    return sharpen.train(
        {"path": model, "device": "cpu"},
        method,
        rows,
        run=run,
        quiet=True,
        rollout={"max_new_tokens": 6, "temperature": TEMPERATURE},
        training={"steps": steps, "prompts_per_step": 3},
        optimizer={"learning_rate": 1e-2, "warmup_steps": 0, "schedule": "constant"},
        **settings,
    )


@pytest.mark.parametrize("kind", [Distillation, HintedDistillation])
def test_the_advantage_is_the_log_ratio_of_teacher_and_policy(
    kind: Any, model: Path, teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """J = 1/N Σ Â log π, Â = log ν − log π without gradient. Nothing is scored."""
    seen, found = Seen(monkeypatch), record_gradients(monkeypatch)
    run = train(model, kind(teacher=str(teacher)), tmp_path / "run")
    policy, nu = plain_model(model), plain_model(teacher)
    (groups,), batch = seen.groups, seen.reports[0].batch
    trajectories = [(group, t) for group in groups for t in group.trajectories]
    loss, count = torch.zeros(()), 0
    for e, (group, trajectory) in enumerate(trajectories):
        prefix, tokens = group.prompt.token_ids, trajectory.token_ids
        hint = tuple(group.prompt.row["hint_ids"]) if kind is HintedDistillation else ()
        logprobs = plain_logprobs(policy, prefix, tokens, TEMPERATURE)
        advantages = plain_logprobs(nu, hint + prefix, tokens, TEMPERATURE).detach() - logprobs.detach()
        assert torch.allclose(batch["advantages"][e, : len(tokens)], advantages, atol=1e-5)
        loss, count = loss - (advantages * logprobs).sum(), count + len(tokens)
    assert relative_error(found[0], plain_gradient(policy, loss / count)) < 1e-5
    (metrics,) = run.metric_rows()
    assert not any(name.startswith("reward") for name in metrics)
    rows = pq.read_table(run.path / "samples" / "step_000001.parquet").to_pylist()
    assert [row["completion"] for row in rows] == [t.text for _, t in trajectories]
    assert {row["reward"] for row in rows} == {None}


def test_the_hint_changes_what_the_teacher_says(
    model: Path, teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = Seen(monkeypatch)
    train(model, Distillation(teacher=str(teacher)), tmp_path / "plain")
    train(model, HintedDistillation(teacher=str(teacher)), tmp_path / "hinted")
    plain, hinted = (report.batch for report in seen.reports)
    assert torch.equal(plain.tokens_ET, hinted.tokens_ET)
    assert torch.equal(plain["old_logprobs"], hinted["old_logprobs"])
    assert (plain["teacher_logprobs"] - hinted["teacher_logprobs"]).abs().max() > 0.01


def test_the_policy_comes_closer_to_the_teacher(
    model: Path, teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The mean of log π − log ν over drawn tokens estimates KL(π ‖ ν)."""
    seen = Seen(monkeypatch)
    train(model, Distillation(teacher=str(teacher)), tmp_path / "run", steps=60)
    apart = [-r.batch["advantages"][r.batch.mask_ET].mean().item() for r in seen.reports]
    assert sum(apart[-10:]) < 0.5 * sum(apart[:10])


def test_a_divergence_over_the_whole_vocabulary_is_taken_in_the_forward_pass(
    model: Path, teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """J = −1/N Σ KL(π ‖ ν); no stream of the batch holds it."""
    seen, found = Seen(monkeypatch), record_gradients(monkeypatch)
    run = train(model, FullDistillation(teacher=str(teacher)), tmp_path / "run")
    policy, nu = plain_model(model), plain_model(teacher)
    loss, count = torch.zeros(()), 0
    for group in seen.groups[0]:
        for trajectory in group.trajectories:
            prefix, tokens = group.prompt.token_ids, trajectory.token_ids
            p = plain_distributions(policy, prefix, tokens, TEMPERATURE)
            q = plain_distributions(nu, prefix, tokens, TEMPERATURE).detach()
            loss, count = loss + (p.exp() * (p - q)).sum(), count + len(tokens)
    loss = loss / count
    (metrics,) = run.metric_rows()
    assert metrics["loss"] == pytest.approx(loss.item(), rel=1e-5)
    assert metrics["kl"] == pytest.approx(loss.item(), rel=1e-5)
    assert relative_error(found[0], plain_gradient(policy, loss)) < 1e-5
    assert set(seen.reports[0].batch.streams) == {"rollout_logprobs", "advantages"}


def test_held_out_completions_are_measured_against_the_teacher(model: Path, teacher: Path, tmp_path: Path) -> None:
    """The mean of KL(π ‖ ν) over the tokens, at temperature 1, before the first step; and `measure` says the same."""
    written = [{"prompt": f"{n}+{n}=", "completion": str(2 * n)} for n in (3, 7, 8)]
    run = sharpen.train(
        {"path": model, "device": "cpu"},
        OfflineDistillation(teacher=str(teacher)),
        written,
        held_out=written,
        run=tmp_path / "run",
        quiet=True,
        training={"steps": 1},
        evaluation={"every": 1},
    )
    policy, nu, tokenizer = plain_model(model), plain_model(teacher), character_tokenizer(ALPHABET, context=32)
    terms: list[float] = []
    for row in written:
        prefix, tokens = tokenizer(row["prompt"])["input_ids"], tokenizer(row["completion"])["input_ids"]
        p, q = (plain_distributions(m, prefix, [*tokens, tokenizer.eos_token_id]) for m in (policy, nu))
        terms += (p.exp() * (p - q)).sum(dim=-1).tolist()
    before, after = run.metric_rows()
    assert before["held_out/loss"] == pytest.approx(sum(terms) / len(terms), rel=1e-5)
    recipe = make_recipe(
        {
            "run": tmp_path / "other",
            "model": {"path": str(model), "device": "cpu"},
            "method": OfflineDistillation(teacher=str(teacher)),
            "data": {"train": "<given in Python>"},
        }
    )
    rows = SourceRows("", read_rows(written), recipe.data)
    measured = measure(recipe, HeldOut((rows,), "demonstrations", None), run.model)
    assert measured.measures["loss"].mean == after["held_out/loss"]


def test_a_source_without_a_reward_is_distilled_beside_one_that_has_one(
    model: Path, teacher: Path, tmp_path: Path
) -> None:
    (tmp_path / "plain.jsonl").write_text('{"prompt": "1+1="}\n{"prompt": "2+2="}\n')
    tree = tiny_tree(
        tmp_path / "run",
        model,
        "grpo",
        data={
            "task": None,
            "sources": {
                "sums": {"task": "arithmetic?terms=2&digits=1&train_size=4&held_out_size=2"},
                "plain": {"train": str(tmp_path / "plain.jsonl")},
            },
        },
        training={"steps": 2},
        optimizer={"warmup_steps": 0},
        evaluation={"every": 0},
        checkpoint={"best": None},
        log={"samples_every": 1},
    )
    run = start(make_recipe({**tree, "method": Distillation(teacher=str(teacher))}))
    rows = pq.read_table(run.path / "samples" / "step_000002.parquet").to_pylist()
    assert {(row["source"], row["reward"] is None) for row in rows} == {("sums", False), ("plain", True)}
    last = run.metric_rows()[-1]
    assert "source/sums/reward/mean" in last
    assert last["reward/mean"] == last["source/sums/reward/mean"]
