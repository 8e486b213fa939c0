"""Runs that choose what they learn from: rejection sampling and dynamic sampling."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from sharpen.errors import RewardError
from sharpen.launch.run import Run, start
from sharpen.models.policy import load_policy
from sharpen.rollout.engine import Sampling
from sharpen.rollout.generation import generate
from sharpen.rollout.local.engine import LocalEngine
from sharpen.types import Group, Prompt
from tiny_runs import digits, given, tiny_recipe, tiny_start_model

NO_EVALUATION: dict[str, Any] = {"evaluation": {"every": 0}, "checkpoint": {"best": None}}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_start_model(tmp_path_factory.mktemp("kept") / "model")


def run_of(path: Path, model: Path, name: str, reward: Any = digits, **changes: Any) -> Run:
    return start(
        given(
            tiny_recipe(path, model, name, reward="<given in Python>", **NO_EVALUATION, **changes), {"reward": reward}
        )
    )


# Rejection sampling


def test_rft_keeps_and_learns_from_the_right_answers_of_the_initial_policy(
    model: Path, drawn: list[list[Group]], tmp_path: Path
) -> None:
    """What is kept is drawn anew here: ten prompts, eight completions each, with the draw ids 0 to 79."""
    run = run_of(tmp_path / "run", model, "rft", training={"steps": 5})
    lines = [json.loads(line) for line in (run.path / "kept.jsonl").read_text().splitlines()]
    policy = load_policy(model, device="cpu")
    prompts = {line["prompt"]: Prompt(line["prompt_id"], tuple(line["prompt_token_ids"]), "", {}) for line in lines}
    assert {p: q.token_ids for p, q in prompts.items()} == {p: tuple(policy.tokenizer(p)["input_ids"]) for p in prompts}
    texts: dict[str, list[str]] = {}
    for line in lines:
        assert digits(line["completion"]) >= 0.25
        texts.setdefault(line["prompt"], []).append(line["completion"])
    assert all(len(own) == len(set(own)) <= 2 for own in texts.values())
    for name, prompt in prompts.items():
        number = int(prompt.id.removeprefix("arithmetic/train:")) - 1
        ids = range(8 * number, 8 * number + 8)
        [answers] = generate(LocalEngine(policy), [prompt], [ids], Sampling(8), seed=7)
        right: list[str] = []
        for answer in answers:
            if digits(answer.text) >= 0.25 and answer.text not in right:
                right.append(answer.text)
        assert texts[name] == right[:2]
    learned = {(g.prompt.text, c.text) for groups in drawn for g in groups for c in g.trajectories}
    assert learned == {(line["prompt"], line["completion"]) for line in lines}
    assert all(len(g.trajectories) == 1 and not g.scores for groups in drawn for g in groups)
    [samples] = (run.path / "samples").iterdir()
    answered = pq.read_table(samples).to_pylist()
    assert (samples.name, len(answered)) == ("step_000000.parquet", 80)
    first = run.metric_rows()[0]
    assert (first["step"], first["kept"]) == (0, len(lines))
    assert first["reward/mean"] == pytest.approx(sum(row["reward"] for row in answered) / 80)


def test_rft_answers_only_the_prompts_it_is_told_to(model: Path, tmp_path: Path) -> None:
    run = run_of(tmp_path / "run", model, "rft", method={"prompts": 3, "at_most": None}, training={"steps": 1})
    lines = [json.loads(line) for line in (run.path / "kept.jsonl").read_text().splitlines()]
    assert len({line["prompt_id"] for line in lines}) <= 3
    assert '"next_draw": 24' in (run.model / "trainer" / "state.json").read_text()


def test_rft_without_a_right_answer_stops_before_its_first_step(model: Path, tmp_path: Path) -> None:
    with pytest.raises(RewardError, match=r"none of the 80 completions of the initial policy has a reward of 1\.5"):
        run_of(tmp_path / "run", model, "rft", method={"threshold": 1.5})
    assert not (tmp_path / "run" / "metrics.jsonl").exists()


def test_online_rft_without_a_right_answer_does_nothing_in_that_step(model: Path, tmp_path: Path) -> None:
    run = run_of(tmp_path / "run", model, "online_rft", method={"threshold": 1.5}, training={"steps": 2})
    assert [(row["updates/applied"], row["updates/skipped"]) for row in run.metric_rows()] == [(0, 1), (0, 1)]
    assert (run.model / "model.safetensors").read_bytes() == (model / "model.safetensors").read_bytes()


# Dynamic sampling


def test_dynamic_sampling_fills_a_step_with_groups_that_teach(
    model: Path, drawn: list[list[Group]], tmp_path: Path
) -> None:
    """Long answers are right here, so that many groups are flat. Rounds of four prompts, at most three."""

    def long(completion: str) -> float:
        return float(len(completion) == 8)

    run = run_of(tmp_path / "run", model, "dapo", long, training={"steps": 4})
    rows = run.metric_rows()
    aside = 0
    for step, (groups, row) in enumerate(zip(drawn, rows, strict=True), start=1):
        assert all({s.total for s in g.scores} == {0.0, 1.0} for g in groups)
        samples = pq.read_table(run.path / "samples" / f"step_{step:06d}.parquet").to_pylist()
        number = len(samples) // 4
        assert number in (4, 8, 12)
        assert len(groups) == 4 or number == 12
        aside += number - len(groups)
        assert row.get("groups/set_aside", 0.0) == (number - len(groups)) / number
        # Figures of the rollout are of all that was drawn.
        assert row["reward/mean"] == pytest.approx(sum(s["reward"] for s in samples) / len(samples))
        ids = [sample["draw_id"] for sample in samples]
        assert [c.draw_id for g in groups for c in g.trajectories] == ids[: 4 * len(groups)]
    assert aside > 0


@pytest.mark.parametrize("overlong_share", [0.0, 0.5])
def test_dynamic_sampling_of_nothing_but_flat_groups_changes_nothing(
    overlong_share: float, model: Path, tmp_path: Path
) -> None:
    """Nor does the punishment of long answers alone."""

    def same(completion: str) -> float:
        return 1.0

    method = {"overlong_share": overlong_share, "max_rounds": 2}
    run = run_of(tmp_path / "run", model, "dapo", same, method=method, training={"steps": 1})
    [row] = run.metric_rows()
    assert (row["updates/applied"], row["groups/set_aside"], row["groups/zero_spread"]) == (0, 0.5, 1.0)
    assert '"next_draw": 32' in (run.model / "trainer" / "state.json").read_text()
