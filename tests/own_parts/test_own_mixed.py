"""A second source: every update adds γ times the gradient of another method's loss on rows of its own."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from own_mixed import PPOPtx
from torch import Tensor

from plain_forward import plain_gradient, plain_logprobs, plain_model, record_gradients, relative_error
from sharpen.errors import ChangedError, RecipeError
from sharpen.launch.run import resume, start
from sharpen.methods import DPO, METHODS, PPO, SFT
from sharpen.methods.method import Mixed
from tiny_runs import Raising, assert_left_the_same, digits, given, left_behind, tiny_recipe, tiny_start_model

GAMMA = 3.5
WRITTEN = [{"prompt": f"{n}+{n}=", "completion": str(2 * n)} for n in range(1, 8)]
RANKED = [{"prompt": f"{n}+{n}=", "chosen": str(2 * n), "rejected": f"{n}+"} for n in range(1, 8)]


class PPODpo(PPOPtx):
    """With preferences as the second source, which need a reference."""

    name = "ppo_dpo"

    def mixed(self) -> Mixed:
        return Mixed(DPO(beta=0.5), self.ptx_coef, self.ptx_prompts)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_start_model(tmp_path_factory.mktemp("own_mixed") / "model")


PPO_SETTINGS: dict[str, Any] = {"group_size": 2, "minibatches": 2, "beta": 0.0}


def run(folder: Path, model: Path, method: Any, **changes: Any) -> Path:
    recipe = tiny_recipe(
        folder,
        model,
        method.name,
        method=method,
        evaluation={"every": 0},
        checkpoint={"every": 1, "best": None, "keep": 9},
        **{"training": {"steps": 1}, "rollout": {"temperature": 0.7}, "reward": "<given in Python>", **changes},
    )
    start(given(recipe, {"reward": digits}) if recipe.reward else recipe)
    return folder


def rows(path: Path, content: list[dict[str, str]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in content))
    return str(path)


def test_the_gradient_is_the_sum_of_both(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """∇J of the first update = ∇J_PPO + γ ∇J_SFT, each computed in a run of its own: PPO's draws the same completions,
    and SFT's takes the same demonstrations. A demonstration was not drawn at 0.7: its temperature is 1.
    """
    found = record_gradients(monkeypatch)
    demonstrations = rows(tmp_path / "demonstrations.jsonl", WRITTEN)
    first: dict[str, Tensor] = {}
    of_sft = {"data": {"task": None, "train": demonstrations}, "reward": None, "rollout": {"temperature": 1.0}}
    for name, method, changes in (
        ("ppo", PPO(**PPO_SETTINGS), {}),
        ("sft", SFT(), {**of_sft, "training": {"steps": 1, "prompts_per_step": 3}}),
        ("both", PPOPtx(**PPO_SETTINGS, ptx_coef=GAMMA, ptx_prompts=6), {"data": {"mixed": demonstrations}}),
    ):
        found.clear()
        run(tmp_path / name, model, method, **changes)
        first[name] = found[0]
    assert (GAMMA * first["sft"]).norm() > 0.1 * first["ppo"].norm()
    assert relative_error(first["both"], first["ppo"] + GAMMA * first["sft"]) <= 1e-6


def test_each_update_takes_its_share(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without advantages only the second source is left: the mean of −log π over the tokens of three demonstrations,
    and in the second update over those of the other three.
    """
    found = record_gradients(monkeypatch)
    demonstrations = rows(tmp_path / "demonstrations.jsonl", WRITTEN)
    method = PPOPtx(**PPO_SETTINGS, ptx_coef=GAMMA, ptx_prompts=6)
    monkeypatch.setattr(PPOPtx, "advantages", lambda self, batch: batch.mask_ET * 0.0)
    rate = {"learning_rate": 1e-12, "warmup_steps": 0, "schedule": "constant", "weight_decay": 0.0}
    taken: list[Any] = []
    source = type(SFT().source())
    collect = source.collect

    def recording(self: Any, collector: Any, prompts: int) -> Any:
        drawn = collect(self, collector, prompts)
        taken.extend(drawn.groups)
        return drawn

    monkeypatch.setattr(source, "collect", recording)
    run(tmp_path / "run", model, method, data={"mixed": demonstrations}, optimizer=rate)
    plain = plain_model(model)
    assert len(taken) == 6
    assert len({group.prompt.text for group in taken}) == 6
    for number, gradient in enumerate(found):
        told = [(g.prompt.token_ids, t.token_ids) for g in taken[3 * number : 3 * number + 3] for t in g.trajectories]
        terms = torch.cat([plain_logprobs(plain, prefix, tokens) for prefix, tokens in told])
        assert relative_error(gradient, plain_gradient(plain, -GAMMA * terms.mean())) < 1e-5
    assert len(found) == 2


def test_a_second_source_with_a_reference(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """DPO on the first half of six rankings, in the first of two updates."""
    found = record_gradients(monkeypatch)
    preferences = rows(tmp_path / "preferences.jsonl", RANKED)
    first = {}
    dpo = {"data": {"task": None, "train": preferences}, "reward": None, "rollout": {"temperature": 1.0}}
    for name, method, changes in (
        ("ppo", PPO(**PPO_SETTINGS), {}),
        ("dpo", DPO(beta=0.5), {**dpo, "training": {"steps": 1, "prompts_per_step": 3}}),
        ("both", PPODpo(**PPO_SETTINGS, ptx_coef=GAMMA, ptx_prompts=6), {"data": {"mixed": preferences}}),
    ):
        found.clear()
        run(tmp_path / name, model, method, **changes)
        first[name] = found[0]
    assert relative_error(first["both"], first["ppo"] + GAMMA * first["dpo"]) <= 1e-6


def test_a_run_with_a_second_source_is_resumed_where_it_was_in_its_rows(model: Path, tmp_path: Path) -> None:
    demonstrations = rows(tmp_path / "demonstrations.jsonl", WRITTEN)
    changes = {"data": {"mixed": demonstrations}, "training": {"steps": 4}}
    method = PPOPtx(**PPO_SETTINGS, ptx_coef=GAMMA, ptx_prompts=2)
    expected = left_behind(run(tmp_path / "whole", model, method, **changes), 4)

    class PowerCut(KeyboardInterrupt):
        pass

    def fall() -> None:
        raise PowerCut

    recipe = tiny_recipe(
        tmp_path / "run",
        model,
        "ppo_ptx",
        method=method,
        evaluation={"every": 0},
        checkpoint={"every": 1, "best": None, "keep": 9},
        rollout={"temperature": 0.7},
        reward="<given in Python>",
        **changes,
    )
    with pytest.raises(PowerCut):
        start(given(recipe, {"reward": digits}), loggers=[Raising(lambda step: step == 3, fall)])
    assert resume(tmp_path / "run", {"reward": digits}).finished
    assert_left_the_same(tmp_path / "run", expected, 4)
    rows(tmp_path / "demonstrations.jsonl", [*WRITTEN[1:], {"prompt": "1+1=", "completion": "3"}])
    with pytest.raises(
        ChangedError,
        match=r"- `data\.mixed`: \S+demonstrations\.jsonl has other values in columns `prompt` and `completion`",
    ):
        resume_from(tmp_path / "run", 2)


def resume_from(path: Path, step: int) -> None:
    """Resume as if the run had died after this step."""
    for checkpoint in (path / "checkpoints").glob("step_*"):
        if int(checkpoint.name.removeprefix("step_")) > step:
            shutil.rmtree(checkpoint)
    resume(path, {"reward": digits})


@pytest.mark.parametrize(
    ("method", "data", "said"),
    [
        (PPOPtx(), {}, "method ppo_ptx has a second source: give its rows as data.mixed"),
        (
            PPO(**PPO_SETTINGS),
            {"mixed": "rows.jsonl"},
            "`data.mixed` has no effect: only for a method with a",
        ),
    ],
)
def test_rows_and_a_second_source_belong_together(
    method: Any, data: dict[str, str], said: str, model: Path, tmp_path: Path
) -> None:
    with pytest.raises(RecipeError, match=said):
        run(tmp_path / "run", model, method, data=data)


def test_a_second_source_trains_the_same_model(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PPOPtx, "mixed", lambda self: Mixed(METHODS["reward_model"](), 1.0, 4))
    preferences = rows(tmp_path / "preferences.jsonl", RANKED)
    with pytest.raises(RecipeError, match="the second source of method ppo_ptx must train the policy alone"):
        run(tmp_path / "run", model, PPOPtx(), data={"mixed": preferences})
