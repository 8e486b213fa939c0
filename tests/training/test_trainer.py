"""The loop: one step of GRPO is the paper's algorithm, and measuring does not disturb it."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch

from oracles import grpo, reduction
from oracles.advantages import outcome_advantages
from oracles.ragged import Ragged
from sharpen.data.collate import collate
from sharpen.evaluation.estimators import Estimate
from sharpen.evaluation.runner import Evaluation
from sharpen.launch.run import start
from sharpen.models.policy import load_policy
from sharpen.runs.folder import read_metrics
from sharpen.types import Group
from tiny_models import own_logprobs
from tiny_runs import digits, given, left_behind, tiny_recipe, tiny_start_model, untimed

OFF = {"every": 0}
NO_EVALUATION = {"evaluation": OFF, "checkpoint": {"best": None}}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_start_model(tmp_path_factory.mktemp("trainer") / "model")


def algorithm_1(model: Path, groups: Sequence[Group], *, passes: int, parts: int, beta: float, rate: float) -> Any:
    """DeepSeekMath's algorithm 1 from line 7 on, for one step, sequence by sequence, with torch's own AdamW."""
    policy, reference = load_policy(model, device="cpu"), load_policy(model, device="cpu")
    optimizer = torch.optim.AdamW(policy.model.parameters(), lr=rate, eps=0.1, weight_decay=0.0)
    rewards = [score.total for group in groups for score in group.scores]
    numbers = [i for i, group in enumerate(groups) for _ in group.trajectories]
    advantages = outcome_advantages(rewards, numbers)
    batch = collate(groups)
    with torch.no_grad():
        old = torch.stack(own_logprobs(policy.model, batch, 1.0)).tolist()
        ref = torch.stack(own_logprobs(reference.model, batch, 1.0)).tolist()
    losses, norms = [], []
    size = len(groups) // parts
    for _ in range(passes):
        for part in range(parts):
            chosen = [b for b, group in enumerate(numbers) if part * size <= group < (part + 1) * size]
            cut = batch.select(torch.tensor(chosen))
            own = own_logprobs(policy.model, cut, 1.0)
            step = Ragged(
                [row.tolist() for row in own],
                [old[b] for b in chosen],
                [ref[b] for b in chosen],
                cut.mask_ET.tolist(),
                cut.group_E.tolist(),
                [],
            )
            settings = {"eps_low": 0.2, "eps_high": 0.2, "beta": beta, "reduce": reduction.per_sequence}
            ours = [advantages[b] for b in chosen]
            losses.append(grpo.loss(step.policy, step, ours, **settings))
            optimizer.zero_grad()
            torch.stack(own).backward(torch.tensor(grpo.loss_gradient(step.policy, step, ours, **settings)))
            norms.append(torch.nn.utils.clip_grad_norm_(policy.model.parameters(), 0.3).item())
            optimizer.step()
    return policy.model.state_dict(), sum(losses) / len(losses), sum(norms) / len(norms)


@pytest.mark.parametrize(("passes", "parts", "beta"), [(1, 1, 0.0), (1, 1, 0.1), (2, 2, 0.0), (3, 2, 0.1), (1, 4, 0.1)])
def test_a_step_of_grpo_is_algorithm_1_of_its_paper(
    passes: int, parts: int, beta: float, model: Path, drawn: list[list[Group]], tmp_path: Path
) -> None:
    recipe = tiny_recipe(
        tmp_path / "run",
        model,
        "grpo",
        method={"updates_per_rollout": passes, "minibatches": parts, "beta": beta},
        # A large ε keeps Adam from magnifying the rounding of gradients that are all but zero.
        optimizer={
            "learning_rate": 0.5,
            "eps": 0.1,
            "weight_decay": 0,
            "warmup_steps": 0,
            "schedule": "constant",
            "max_grad_norm": 0.3,
        },
        training={"steps": 1},
        reward="<given in Python>",
        **NO_EVALUATION,
    )
    run = start(given(recipe, {"reward": digits}))
    [groups] = drawn
    assert [len(group.trajectories) for group in groups] == [4] * 4
    assert all(s.total == digits(c.text) for g in groups for c, s in zip(g.trajectories, g.scores, strict=True))
    expected, loss, norm = algorithm_1(model, groups, passes=passes, parts=parts, beta=beta, rate=0.5)
    begin = load_policy(model, device="cpu").model.state_dict()
    found = load_policy(run.model, device="cpu").model.state_dict()
    moved = max((expected[name] - begin[name]).abs().max().item() for name in begin)
    assert moved > 0.02
    for name in begin:
        assert (found[name] - expected[name]).abs().max() < 2e-4 * moved, name
    [row] = run.metric_rows()
    assert row["loss"] == pytest.approx(loss, rel=1e-4, abs=1e-6)
    assert row["grad_norm"] == pytest.approx(norm, rel=1e-4)
    assert (row["updates/applied"], row["updates/skipped"]) == (passes * parts, 0)
    totals = torch.tensor([s.total for g in groups for s in g.scores])
    assert row["reward/mean"] == pytest.approx(totals.mean().item())
    assert row["length/mean"] == sum(len(c.token_ids) for g in groups for c in g.trajectories) / 16
    assert row["mismatch/max"] < 1e-5
    if passes * parts == 1:
        assert row["ratio/mean"] == 1.0
    else:
        assert row["ratio/p99.9"] > 1.0


def test_the_learning_rate_counts_optimizer_steps_not_rollouts(model: Path, tmp_path: Path) -> None:
    """Six rollouts of four updates: two updates of warm-up, then linearly from 1 at update 2 to 0 at update 23."""
    recipe = tiny_recipe(
        tmp_path / "run",
        model,
        "grpo",
        reward="<given in Python>",
        optimizer={"learning_rate": 1e-3, "schedule": "linear"},
        **NO_EVALUATION,
    )
    rows = start(given(recipe, {"reward": digits})).metric_rows()
    last_updates = [3, 7, 11, 15, 19, 23]
    assert [row["learning_rate"] for row in rows] == pytest.approx([1e-3 * (1 - (u - 2) / 21) for u in last_updates])


def test_a_run_in_which_nothing_has_an_advantage_changes_nothing(model: Path, tmp_path: Path) -> None:
    def same(completion: str) -> float:
        return 0.7

    recipe = tiny_recipe(
        tmp_path / "run", model, "grpo", reward="<given in Python>", method={"beta": 0.0}, **NO_EVALUATION
    )
    run = start(given(recipe, {"reward": same}))
    before, after = (load_policy(path, device="cpu").model.state_dict() for path in (model, run.model))
    assert all(torch.equal(before[name], after[name]) for name in before)
    for row in run.metric_rows():
        assert (row["updates/applied"], row["updates/skipped"], row["groups/zero_spread"]) == (0, 4, 1.0)
        assert (row["loss"], row["grad_norm"]) == (0.0, 0.0)
    assert '"policy": 0' in (run.model / "trainer" / "state.json").read_text()


@pytest.mark.parametrize(("method", "best"), [("sft", "reward"), ("grpo", "reward"), ("reward_model", "loss")])
def test_measuring_does_not_disturb_training(method: str, best: str, model: Path, tmp_path: Path) -> None:
    settings = {"reward": "<given in Python>", "evaluation": {"every": 1}, "checkpoint": {"best": best}}
    measured = tiny_recipe(tmp_path / "measured", model, method, **settings)
    alone = tiny_recipe(tmp_path / "alone", model, method, reward="<given in Python>", **NO_EVALUATION)
    for recipe in (measured, alone):
        start(given(recipe, {"reward": digits}))
    left, right = (left_behind(tmp_path / name) for name in ("measured", "alone"))
    for name in ("model.safetensors", "trainer/optimizer.safetensors", "samples"):
        assert left[name] == right[name], name
    rows = untimed(left["metrics"], leave_out=("held_out/",))
    assert rows == [{"step": 0}, *right["metrics"]]


@pytest.mark.parametrize("method", ["sft", "grpo"])
def test_how_the_work_is_cut_changes_a_run_by_rounding_only(method: str, model: Path, tmp_path: Path) -> None:
    """Law 1 over a whole run: the same samples, and metrics to five digits."""
    runs = []
    for name, tokens, shared, side_by_side in (("a", 10_000, True, 512), ("b", 1, False, 3), ("c", 60, True, 1)):
        recipe = tiny_recipe(
            tmp_path / name,
            model,
            method,
            reward="<given in Python>",
            training={"tokens_per_microbatch": tokens, "shared_prompt": shared},
            rollout={"engine": {"max_sequences": side_by_side}},
            **NO_EVALUATION,
        )
        start(given(recipe, {"reward": digits}))
        runs.append(left_behind(tmp_path / name))
    for other in runs[1:]:
        for one, two in zip(runs[0]["metrics"], other["metrics"], strict=True):
            one.pop("mismatch/mean", None), two.pop("mismatch/mean", None)
            one.pop("mismatch/max", None), two.pop("mismatch/max", None)
            assert one == pytest.approx(two, rel=1e-4, abs=1e-6)
        assert other["samples"] == runs[0]["samples"]


def test_samples_say_what_was_drawn_and_what_it_was_worth(
    model: Path, drawn: list[list[Group]], tmp_path: Path
) -> None:
    recipe = tiny_recipe(
        tmp_path / "run", model, "grpo", reward="<given in Python>", log={"samples_every": 4}, **NO_EVALUATION
    )
    start(given(recipe, {"reward": digits}))
    assert [file.name for file in (tmp_path / "run" / "samples").iterdir()] == ["step_000004.parquet"]
    rows = pq.read_table(tmp_path / "run" / "samples" / "step_000004.parquet").to_pylist()
    expected = [(g.prompt, c) for g in drawn[3] for c in g.trajectories]
    assert len(rows) == len(expected) == 16
    for row, (prompt, completion) in zip(rows, expected, strict=True):
        assert row == {
            "step": 4,
            "prompt_id": prompt.id,
            "prompt": prompt.text,
            "completion": completion.text,
            "reward": digits(completion.text),
            "reward/digits": digits(completion.text),
            "error": None,
            "tokens": len(completion.token_ids),
            "finish": completion.last.finish.value,
            "draw_id": completion.draw_id,
            # Three training steps came before.
            "policy_version": 3,
        }


def test_one_epoch_shows_every_demonstration_once(model: Path, drawn: list[list[Group]], tmp_path: Path) -> None:
    recipe = tiny_recipe(tmp_path / "run", model, "sft", training={"steps": 7, "prompts_per_step": 2}, **NO_EVALUATION)
    start(recipe)
    ids = [group.prompt.id for groups in drawn for group in groups]
    assert len(ids) == len(set(ids)) == 14


@pytest.mark.parametrize(
    ("best", "kept"),
    # 0.9 first at step 2, the same again at step 3 is no improvement; the least after step 0 is 0.2 at step 4.
    [("reward", 2), ("loss", 4)],
)
def test_the_best_and_the_latest_checkpoints_are_kept(
    best: str, kept: int, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = [0.1, 0.5, 0.9, 0.9, 0.2, 0.3, 0.4]
    scripted = iter(values)

    def measured(*arguments: Any, **settings: Any) -> Any:
        value = next(scripted)
        return Evaluation({best: Estimate(value, value, value)}, ())

    monkeypatch.setattr("sharpen.launch.held_out.evaluate", measured)
    monkeypatch.setattr("sharpen.launch.held_out.measure_groups", lambda *arguments: measured().measures)
    recipe = tiny_recipe(
        tmp_path / "run",
        model,
        "reward_model" if best == "loss" else "sft",
        evaluation={"every": 1},
        checkpoint={"every": 1, "keep": 1, "best": best},
    )
    run = start(recipe)
    names = sorted(path.name for path in (tmp_path / "run" / "checkpoints").glob("step_*"))
    assert names == [f"step_{kept:06d}", "step_000006"]
    assert [row[f"held_out/{best}"] for row in read_metrics(run.path)] == values
    assert f'"best": {{\n  "step": {kept}' in (run.model / "trainer" / "state.json").read_text()


def test_a_failed_reward_is_recorded_masked_and_left_out_of_the_baseline(
    model: Path, drawn: list[list[Group]], tmp_path: Path
) -> None:
    """The gradient is that of the completions that are left."""
    calls = 0

    def sometimes(completion: str) -> float:
        nonlocal calls
        calls += 1
        if calls == 6:
            raise ValueError(f"cannot read {completion!r}")
        return digits(completion)

    recipe = tiny_recipe(
        tmp_path / "run",
        model,
        "grpo",
        method={"updates_per_rollout": 1, "minibatches": 1, "beta": 0.0},
        training={"steps": 1},
        reward="<given in Python>",
        **NO_EVALUATION,
    )
    run = start(given(recipe, {"reward": sometimes}))
    [row] = run.metric_rows()
    assert row["reward/failed"] == 1 / 16
    [groups] = drawn
    failed = groups[1].trajectories[1]
    rows = pq.read_table(run.path / "samples" / "step_000001.parquet").to_pylist()
    assert [r["reward"] is None for r in rows] == [i == 5 for i in range(16)]
    assert rows[5]["error"].startswith(f"sometimes raised ValueError: cannot read {failed.text!r}")

    kept = [
        replace(g, trajectories=g.trajectories[:1] + g.trajectories[2:]) if i == 1 else g for i, g in enumerate(groups)
    ]
    rewards = [s.total for g in kept for s in g.scores]
    numbers = [i for i, g in enumerate(kept) for _ in g.trajectories]
    assert row["reward/mean"] == pytest.approx(sum(rewards) / 15)
    batch = collate(kept)
    policy = load_policy(model, device="cpu")
    own = own_logprobs(policy.model, batch, 1.0)
    weights = reduction.weights(reduction.per_sequence, batch.mask_ET.tolist(), numbers)
    coefficients = torch.tensor(weights) * torch.tensor(outcome_advantages(rewards, numbers))[:, None]
    torch.stack(own).backward(-coefficients)
    norm = torch.nn.utils.get_total_norm([p.grad for p in policy.model.parameters()])
    assert row["grad_norm"] == pytest.approx(norm.item(), rel=1e-4)
