"""Reward models as runs: what is measured on held-out rankings, and where the scores are centred."""

from __future__ import annotations

import math
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoModelForTokenClassification

from sharpen.data.collate import collate
from sharpen.errors import CheckpointError
from sharpen.in_memory import IN_MEMORY
from sharpen.launch.run import Run, resume, start
from sharpen.methods import resolve_method
from sharpen.models.forward import MicrobatchLimits
from sharpen.models.load import load_tokenizer
from sharpen.models.model import Model
from sharpen.models.reference import frozen
from sharpen.models.scorer import Scorer
from sharpen.runs.checkpoint_list import problem
from sharpen.runs.checkpoint_state import load_state
from sharpen.training.annotate import Annotator
from sharpen.training.held_out import measure_groups
from sharpen.training.reference import Reference
from sharpen.training.score_normalisation import ScoreNormalisation
from sharpen.types import Group, Score, StepValue, single_turn
from tiny_models import loaded_scorer, make_prompt, own_logprobs, tiny_policy
from tiny_runs import given, tiny_recipe, tiny_start_model

LIMITS = MicrobatchLimits(40, shared_prompt=True)
PREFERENCES: list[dict[str, Any]] = [
    {"prompt": "1+2=", "completions": ["#3", "#4", "1+2=3#3"], "scores": [1, 0, 2]},
    {"prompt": "7-7=", "completions": ["#0", "#7"], "scores": [1, 0]},
    {"prompt": "4+4=", "completions": ["#8", "#9", "#8;", "#4"], "scores": [2, 0, 1, 0]},
    {"prompt": "5-2=", "completions": ["#2", "#3"], "scores": [0, 1]},
]


def groups_of(model: Any, *, steps: bool = False) -> list[Group]:
    groups = []
    for row in PREFERENCES:
        prompt = make_prompt(model, row["prompt"])
        completions, scores = [], []
        for answer, grade in zip(row["completions"], row["scores"], strict=True):
            ids = tuple(model.tokenizer(answer)["input_ids"])
            completions.append(single_turn(prompt.token_ids, ids, answer))
            marks = (StepValue(0, float(grade > 0)), StepValue(len(ids) - 1, 0.0)) if steps else ()
            scores.append(Score(float(grade), steps=marks))
        groups.append(Group(prompt, tuple(completions)).scored(scores))
    return groups


def own_scores(scorer: Scorer, group: Group) -> list[list[float]]:
    """The head at every token of each completion, one sequence at a time."""
    rows = []
    with torch.no_grad():
        for completion in group.trajectories:
            ids = torch.tensor([[*group.prompt.token_ids, *completion.token_ids]])
            states = scorer.model.model(input_ids=ids, use_cache=False).last_hidden_state[0]
            rows.append(scorer.head(states)[len(group.prompt.token_ids) :, 0].tolist())
    return rows


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def pairs(values: list[float], group: Group) -> list[tuple[int, int]]:
    grades = [score.total for score in group.scores]
    return [(w, l) for w in range(len(values)) for l in range(len(values)) if grades[w] > grades[l]]  # type: ignore[operator]


def mean(values: list[float]) -> float:
    return sum(values) / len(values)


def shares(values: list[float], group: Group) -> float:
    """Of each completion that beats others the share of these that the values say so of; the mean of these."""
    per_winner: dict[int, list[float]] = {}
    for w, l in pairs(values, group):
        per_winner.setdefault(w, []).append(float(values[w] > values[l]))
    return mean([mean(wins) for wins in per_winner.values()])


def test_held_out_rankings_of_a_reward_model(tmp_path: Path) -> None:
    scorer = loaded_scorer(tmp_path / "model", "sequence")
    groups = groups_of(scorer)
    annotator = Annotator({"outcome_reward_model": scorer}, None, 1.0, LIMITS)
    found = measure_groups(resolve_method("reward_model"), annotator, groups)
    last = [[row[-1] for row in own_scores(scorer, group)] for group in groups]
    losses = [
        mean([-math.log(sigmoid(s[w] - s[l])) for w, l in pairs(s, group)])
        for s, group in zip(last, groups, strict=True)
    ]
    accuracies = [shares(s, group) for s, group in zip(last, groups, strict=True)]
    assert len({round(a, 6) for a in accuracies}) > 1
    assert found["loss"].mean == pytest.approx(mean(losses), rel=1e-5)
    assert found["pair_accuracy"].mean == pytest.approx(mean(accuracies))
    assert found["score"].mean == pytest.approx(mean([mean(s) for s in last]), rel=1e-5)
    assert found["loss"].low <= found["loss"].mean <= found["loss"].high
    assert not any(p.grad is not None for p in scorer.model.parameters())


def test_held_out_rankings_of_dpo() -> None:
    """h is Σ log π − log π_ref; the margin is β times the difference."""
    policy = tiny_policy(seed=1)
    reference = Reference(frozen(tiny_policy(seed=2)), policy, resolve_method("dpo").kl_settings)
    groups = groups_of(policy)
    annotator = Annotator({"policy": policy}, reference, 1.0, LIMITS)
    found = measure_groups(resolve_method({"name": "dpo", "beta": 0.05}), annotator, groups)
    losses, margins, accuracies = [], [], []
    for group in groups:
        batch = collate([group])
        h = []
        for b, completion in enumerate(group.trajectories):
            length = len(completion.token_ids)
            ours, theirs = (own_logprobs(m.model, batch, 1.0)[b][:length] for m in (policy, reference.policy))
            h.append((ours - theirs).sum().item())
        u = [0.05 * x for x in h]
        losses.append(mean([-math.log(sigmoid(u[w] - u[l])) for w, l in pairs(u, group)]))
        per_winner: dict[int, list[float]] = {}
        for w, l in pairs(u, group):
            per_winner.setdefault(w, []).append(u[w] - u[l])
        margins.append(mean([mean(own) for own in per_winner.values()]))
        accuracies.append(shares(u, group))
    assert found["loss"].mean == pytest.approx(mean(losses), rel=1e-4)
    assert found["pair_margin"].mean == pytest.approx(mean(margins), rel=1e-4)
    assert found["pair_accuracy"].mean == pytest.approx(mean(accuracies))


def test_held_out_steps_of_a_process_reward_model(tmp_path: Path) -> None:
    """The first token is a step with the label below, the last one a wrong step; the loss is a mean over all steps."""
    scorer = loaded_scorer(tmp_path / "model", "token")
    groups = groups_of(scorer, steps=True)
    annotator = Annotator({"process_reward_model": scorer}, None, 1.0, LIMITS)
    found = measure_groups(resolve_method("process_reward_model"), annotator, groups)
    losses, accuracies = [], []
    for group in groups:
        right = []
        for row, score in zip(own_scores(scorer, group), group.scores, strict=True):
            for step in score.steps:
                p = sigmoid(row[step.position])
                losses.append(-math.log(p if step.value else 1 - p))
            right.append(mean([float((row[s.position] > 0) == bool(s.value)) for s in score.steps]))
        accuracies.append(mean(right))
    assert found["loss"].mean == pytest.approx(mean(losses), rel=1e-4)
    assert found["step_accuracy"].mean == pytest.approx(mean(accuracies))


def test_held_out_demonstrations_of_sft() -> None:
    policy = tiny_policy(seed=1)
    shown = [Group(g.prompt, g.trajectories[:1]) for g in groups_of(policy)]
    found = measure_groups(resolve_method("sft"), Annotator({"policy": policy}, None, 1.0, LIMITS), shown)
    batch = collate(shown)
    logprobs = torch.stack(own_logprobs(policy.model, batch, 1.0))[batch.mask_ET]
    assert found["loss"].mean == pytest.approx(-logprobs.mean().item(), rel=1e-5)


# Runs


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_start_model(tmp_path_factory.mktemp("scorers") / "model")


def run_of(
    path: Path, model: Path, objects: Mapping[str, Any] | None = None, name: str = "reward_model", **changes: Any
) -> Run:
    settings: dict[str, Any] = {
        "optimizer": {"learning_rate": 0.02, "warmup_steps": 0},
        "checkpoint": {"best": None, "every": 0},
        "evaluation": {"every": 0},
    }
    if objects is not None:
        settings["data"] = {"train": IN_MEMORY, "task": None}
    return start(given(tiny_recipe(path, model, name, **{**settings, **changes}), objects or {}))


def score(path: Path, prompt: str, completion: str) -> float:
    """By plain transformers, at the last token."""
    classifier = AutoModelForSequenceClassification.from_pretrained(path)
    tokenizer = load_tokenizer(str(path), trust_remote_code=False)
    ids = [*tokenizer(prompt)["input_ids"], *tokenizer(completion)["input_ids"], tokenizer.eos_token_id]
    assert classifier.config.num_labels == 1
    with torch.no_grad():
        return float(classifier(input_ids=torch.tensor([ids])).logits[0, 0])


def test_a_reward_model_ends_with_a_mean_score_of_0_on_the_best_of_its_rankings(model: Path, tmp_path: Path) -> None:
    run = run_of(tmp_path / "run", model, {"data.train": PREFERENCES}, training={"prompts_per_step": 2})
    best = [("1+2=", "1+2=3#3"), ("7-7=", "#0"), ("4+4=", "#8"), ("5-2=", "#3")]
    assert mean([score(run.model, *pair) for pair in best]) == pytest.approx(0.0, abs=1e-4)
    rows = run.metric_rows()
    assert rows[-1]["score/shifted_by"] != 0.0
    assert all("score/shifted_by" not in row for row in rows[:-1])
    assert rows[-1]["loss"] < rows[0]["loss"] == pytest.approx(math.log(2), abs=1e-5)
    assert rows[0]["score"] == 0.0


def best_before_the_last(path: Path, model: Path) -> Run:
    """A run whose held-out loss is least before its last step."""
    return run_of(
        path,
        model,
        {"data.train": PREFERENCES, "data.held_out": PREFERENCES},
        data={"train": IN_MEMORY, "held_out": IN_MEMORY, "task": None},
        training={"prompts_per_step": 2},
        evaluation={"every": 2},
        optimizer={"learning_rate": 0.02, "warmup_steps": 0, "schedule": "constant"},
        checkpoint={"best": "loss", "keep": 1},
    )


def test_the_best_reward_model_is_centred_as_well(model: Path, tmp_path: Path) -> None:
    """Both checkpoints that are left, that of the last step and the best before it, which is then whole and sound."""
    run = best_before_the_last(tmp_path / "run", model)
    assert ["score/shifted_by" in row for row in run.metric_rows()] == [*[False] * 6, True]
    best = [("1+2=", "1+2=3#3"), ("7-7=", "#0"), ("4+4=", "#8"), ("5-2=", "#3")]
    saved = sorted((run.path / "checkpoints").glob("step_*"))
    assert len(saved) == 2
    for checkpoint in saved:
        assert problem(checkpoint) is None
        assert mean([score(checkpoint, *pair) for pair in best]) == pytest.approx(0.0, abs=1e-4)


def test_what_a_checkpoint_was_shifted_by_stands_in_its_state(model: Path, tmp_path: Path) -> None:
    """Both are, the last and the best; what is resumed when all is done is not centred a second time."""
    run = best_before_the_last(tmp_path / "run", model)
    last = load_state(run.model)
    best = load_state(run.path / "checkpoints" / f"step_{last['best']['step']:06d}")
    assert best["step"] == last["best"]["step"] < last["step"] == 6
    assert last["shifted_by"] == run.metric_rows()[-1]["score/shifted_by"]
    assert best["shifted_by"] not in (None, 0.0, last["shifted_by"])
    before = {file: file.read_bytes() for file in (run.path / "checkpoints").rglob("*.safetensors")}
    assert resume(run.path, {"data.train": PREFERENCES, "data.held_out": PREFERENCES}) == run
    assert {file: file.read_bytes() for file in (run.path / "checkpoints").rglob("*.safetensors")} == before


def test_a_damaged_best_checkpoint_is_named_and_can_be_done_without(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    centre = ScoreNormalisation.normalise_saved

    def damaged(self: ScoreNormalisation, checkpoint: Path, like: Model) -> None:
        (checkpoint / "model.safetensors").write_bytes(b"damaged")
        centre(self, checkpoint, like)

    monkeypatch.setattr(ScoreNormalisation, "normalise_saved", damaged)
    with pytest.raises(CheckpointError, match=r"damaged.*without this best checkpoint, remove .*step_") as raised:
        best_before_the_last(tmp_path / "run", model)
    shutil.rmtree(Path(str(raised.value).rpartition("remove ")[2]))
    assert resume(tmp_path / "run").model.name == "step_000006"


def test_a_reward_model_is_centred_on_demonstrations_where_there_are_some(model: Path, tmp_path: Path) -> None:
    demonstrations = tmp_path / "demonstrations.jsonl"
    demonstrations.write_text('{"prompt": "2+2=", "completion": "#4"}\n{"prompt": "9-1=", "completion": "9-1=8#8"}\n')
    data = {"train": IN_MEMORY, "task": None, "demonstrations": str(demonstrations)}
    run = run_of(tmp_path / "run", model, {"data.train": PREFERENCES}, data=data, training={"prompts_per_step": 2})
    shown = [("2+2=", "#4"), ("9-1=", "9-1=8#8")]
    assert mean([score(run.model, *pair) for pair in shown]) == pytest.approx(0.0, abs=1e-4)


def test_a_reward_model_that_is_not_to_be_centred_is_left_alone(model: Path, tmp_path: Path) -> None:
    settings = {"training": {"prompts_per_step": 2}}
    left, centred = (
        run_of(tmp_path / str(centre), model, {"data.train": PREFERENCES}, method={"centre": centre}, **settings)
        for centre in (False, True)
    )
    assert "score/shifted_by" not in left.metric_rows()[-1]
    best = [("1+2=", "1+2=3#3"), ("7-7=", "#0"), ("4+4=", "#8"), ("5-2=", "#3")]
    taken = mean([score(left.model, *pair) for pair in best])
    assert centred.metric_rows()[-1]["score/shifted_by"] == pytest.approx(taken, rel=1e-3)
    # Training is the same; score_normalisation comes after it.
    assert [row["loss"] for row in left.metric_rows()] == [row["loss"] for row in centred.metric_rows()]


def test_rankings_are_measured_while_a_reward_model_is_trained(model: Path, tmp_path: Path) -> None:
    run = run_of(
        tmp_path / "run",
        model,
        evaluation={"every": 3, "prompts": 6},
        checkpoint={"best": "pair_accuracy"},
    )
    rows = {int(row["step"]): row for row in run.metric_rows() if "held_out/pair_accuracy" in row}
    assert list(rows) == [0, 3, 6]
    # A head of 0 tells nothing apart.
    assert rows[0]["held_out/pair_accuracy"] == 0.0
    assert rows[0]["held_out/loss"] == pytest.approx(math.log(2), abs=1e-5)
    assert rows[6]["held_out/loss_low"] <= rows[6]["held_out/loss"] <= rows[6]["held_out/loss_high"]


def test_a_process_reward_model_is_saved_as_a_token_classification(model: Path, tmp_path: Path) -> None:
    run = run_of(tmp_path / "run", model, name="process_reward_model", evaluation={"every": 6, "prompts": 6})
    classifier = AutoModelForTokenClassification.from_pretrained(run.model)
    assert classifier.config.num_labels == 1
    assert classifier.score.weight.abs().max() > 0
    rows = run.metric_rows()
    assert "score/shifted_by" not in rows[-1]
    assert rows[-1]["loss"] < rows[1]["loss"] == pytest.approx(math.log(2), abs=1e-5)
    assert 0 <= rows[-1]["held_out/step_accuracy"] <= 1
