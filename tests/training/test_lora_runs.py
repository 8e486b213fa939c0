"""Runs that train an adapter: the base stays, the reference is on it, a resumed run ends bit for bit the same."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from mixtures import MIXTURES
from oracles.methods import LOSSES
from sharpen.data.collate import collate
from sharpen.errors import ChangedError, ModelError, RecipeError
from sharpen.launch.inputs import read_held_out
from sharpen.launch.measure import measure
from sharpen.launch.run import Run, resume, start
from sharpen.methods import resolve_method
from sharpen.models.adapter import REFERENCE, adapted_layers, adapter_weights
from sharpen.models.lora import merged_weight
from sharpen.models.merge import merge
from sharpen.models.policy import load_policy
from sharpen.models.scorer import load_scorer
from sharpen.training.trainer import Trainer
from sharpen.types import Group
from tiny_models import tiny_folder
from tiny_runs import (
    Raising,
    assert_left_the_same,
    digits,
    given,
    left_behind,
    reward_file,
    tiny_recipe,
    tiny_start_model,
)
from whole_steps import plain_step, said_by

LORA = {"rank": 2, "alpha": 4}
STEPS = 4


class PowerCut(KeyboardInterrupt):
    """Nothing catches it, not even where a logger raises it."""


def cut_off(after: int) -> Raising:
    def fall() -> None:
        raise PowerCut

    return Raising(lambda step: step == after, fall)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_start_model(tmp_path_factory.mktemp("lora") / "model")


@pytest.fixture(scope="module")
def reward(tmp_path_factory: pytest.TempPathFactory) -> str:
    return reward_file(tmp_path_factory.mktemp("reward") / "reward.py")


@pytest.fixture(scope="module")
def begun(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of SFT that trained an adapter."""
    return run_of(tmp_path_factory.mktemp("begun") / "sft", model, "sft").path


@pytest.fixture
def trainers(monkeypatch: pytest.MonkeyPatch) -> list[Trainer]:
    seen: list[Trainer] = []
    begin = Trainer.__init__

    def recording(self: Trainer, *args: Any, **settings: Any) -> None:
        begin(self, *args, **settings)
        seen.append(self)

    monkeypatch.setattr(Trainer, "__init__", recording)
    return seen


def recipe_of(path: Path, model: Path, name: str, /, **changes: Any) -> Any:
    settings: dict[str, Any] = {
        "model": {"lora": LORA},
        "reward": "<given in Python>",
        "training": {"steps": STEPS},
        "optimizer": {"warmup_steps": 0, "schedule": "constant", "learning_rate": 0.02},
        "evaluation": {"every": 0},
        "checkpoint": {"every": 1, "keep": 9, "best": None},
    }
    return tiny_recipe(path, model, name, **{**settings, **changes})


def run_of(path: Path, model: Path, name: str = "grpo", /, **changes: Any) -> Run:
    return start(given(recipe_of(path, model, name, **changes), {"reward": digits}))


def weights(run: Run, step: int, part: str = "") -> dict[str, Tensor]:
    return load_file(run.path / "checkpoints" / f"step_{step:06d}" / part / "adapter_model.safetensors")


# What is trained


@pytest.mark.parametrize("name", ["grpo", "sft", "dpo", "ppo"])
def test_the_base_stays_bit_for_bit_and_the_adapter_alone_is_trained_and_saved(
    name: str, model: Path, tmp_path: Path, trainers: list[Trainer]
) -> None:
    run = run_of(tmp_path / "run", model, name)
    [trainer] = trainers
    base = load_file(model / "model.safetensors")
    for role, trained in trainer.learner.models.items():
        frozen = {n.replace(".base_layer.", "."): p for n, p in trained.model.named_parameters() if not p.requires_grad}
        assert set(frozen) == set(base) - ({"lm_head.weight"} if role == "critic" else set())
        assert all(torch.equal(frozen[n], base[n]) for n in frozen)
        assert all(p.grad is None for p in frozen.values())
        # A and B of seven layers in two blocks; a critic's head as well.
        assert len(trained.parameters()) == 28 + 2 * (role == "critic")
        state = trainer.learner.optimizers[role].state
        assert {id(p) for p in state} == {id(p) for p in trained.parameters()}
        assert all(p.any() for n, p in adapter_weights(trained.model, trained.head_name).items() if ".lora_B." in n)
    files = {str(f.relative_to(run.model)) for f in run.model.rglob("*.safetensors")}
    critic = {"critic/adapter_model.safetensors", "trainer/optimizer_critic.safetensors"}
    assert files == {"adapter_model.safetensors", "trainer/optimizer.safetensors"} | (
        critic if name == "ppo" else set()
    )
    assert len(weights(run, STEPS)) == 28


def test_a_shared_critic_is_trained_in_full_beside_the_adapter(model: Path, tmp_path: Path) -> None:
    run = run_of(tmp_path / "run", model, "ppo", method={"critic": "shared"})
    files = {str(f.relative_to(run.model)) for f in run.model.rglob("*.safetensors")}
    assert files == {"adapter_model.safetensors", "value_head.safetensors", "trainer/optimizer.safetensors"}
    head = load_file(run.model / "value_head.safetensors")
    assert head["weight"].any()
    loaded = load_policy(run.path / "checkpoints" / "step_000004", device="cpu").value_head
    assert loaded is not None
    assert torch.equal(loaded.weight, head["weight"])


@pytest.mark.parametrize("name", ["ppo", "grpo"])
def test_the_ratio_of_one_update_is_one(name: str, model: Path, tmp_path: Path) -> None:
    method = {"beta": 0.01, "updates_per_rollout": 1, "minibatches": 1}
    rows = run_of(tmp_path / "run", model, name, method=method).metric_rows()
    assert [(row["ratio/mean"], row["ratio/p99.9"], row["clip_fraction"]) for row in rows] == [(1.0, 1.0, 0.0)] * STEPS
    assert rows[0]["kl"] == pytest.approx(0.0, abs=1e-6)
    assert rows[3]["kl"] > 1e-4


def test_what_is_saved_says_what_the_run_said(model: Path, tmp_path: Path, trainers: list[Trainer]) -> None:
    run = run_of(tmp_path / "run", model)
    policy = trainers[0].learner.models["policy"]
    for name, layer in adapted_layers(policy.model).items():
        saved = load_policy(run.model, device="cpu").model.get_submodule(name).weight
        torch.testing.assert_close(saved, merged_weight(layer), rtol=0, atol=1e-6)


def test_two_seeds_begin_with_different_adapters(model: Path, tmp_path: Path, trainers: list[Trainer]) -> None:
    for name, seed in (("a", 7), ("b", 7), ("c", 8)):
        run_of(tmp_path / name, model, "sft", seed=seed, optimizer={"learning_rate": 1e-12}, training={"steps": 1})
    a, b, c = (
        adapter_weights(trainer.model.model, trainer.model.head_name)[
            "model.layers.0.mlp.up_proj.lora_A.default.weight"
        ]
        for trainer in trainers
    )
    assert torch.equal(a, b)
    assert (a - c).abs().max() > 0.1


# The reference


def test_the_reference_is_the_base_with_the_adapter_off_and_no_second_copy(
    model: Path, tmp_path: Path, trainers: list[Trainer]
) -> None:
    rows = run_of(tmp_path / "run", model).metric_rows()
    reference = trainers[0].learner.annotator.reference
    assert reference is not None
    policy = trainers[0].model
    assert reference.policy.root is policy.root
    assert {name for name, _ in policy.model.named_parameters() if ".reference." in name} == set()
    base = load_file(model / "model.safetensors")
    frozen = {
        name.replace(".base_layer.", "."): p for name, p in policy.model.named_parameters() if "lora_" not in name
    }
    assert all(torch.equal(frozen[name], base[name]) for name in frozen)
    assert 0 < rows[0]["kl"] < rows[1]["kl"]
    assert not (tmp_path / "run/checkpoints/step_000004/reference").exists()


@pytest.mark.parametrize(
    "method",
    [
        {"name": "grpo", "group_size": 4, "beta": 0.3},
        {"name": "grpo", "group_size": 4, "beta": 0.3, "kl": {"estimator": "exact"}},
        {"name": "ppo", "group_size": 2, "beta": 0.3, "critic": "shared"},
        {"name": "dpo"},
    ],
)
def test_the_loss_of_a_step_is_the_formula_of_the_merged_model_and_the_base(
    method: dict[str, Any], model: Path, tmp_path: Path, drawn: list[list[Group]]
) -> None:
    """Of the second step: after the first the adapter is not 0 any more."""
    one = {} if method["name"] == "dpo" else {"updates_per_rollout": 1, "minibatches": 1}
    bound: Any = resolve_method({**method, **one})
    settings = {"method": bound.model_dump(), "training": {"steps": 2, "tokens_per_microbatch": 60}}
    run = run_of(tmp_path / "run", model, method["name"], **settings)
    policy = load_policy(run.path / "checkpoints" / "step_000001", device="cpu")
    base = load_policy(model, device="cpu")
    batch = collate(drawn[1], completion_limit=8)
    batch = replace(batch, coefficients={k: c.at(2, c.initial) for k, c in bound.coefficients().items()})
    said = said_by(policy, batch, 1.0, base)
    step = plain_step(batch)
    step.old = [[x.item() for x in row] for row in said.logprobs]
    step.reference = [[x.item() for x in row] for row in said_by(base, batch, 1.0).logprobs]
    step.divergence = [[x.item() for x in row] for row in said.divergences]
    step.values = [[x.item() for x in row] for row in said.values]
    loss = LOSSES[method["name"]](bound, step, {"policy": said})["policy"]
    assert run.metric_rows()[1]["loss"] == pytest.approx(loss.item(), rel=1e-3, abs=1e-5)


def test_a_moving_average_is_a_second_adapter(model: Path, tmp_path: Path, trainers: list[Trainer]) -> None:
    """A_ref ← 0.9 A_ref + 0.1 A after every step, and B likewise; B begins at 0."""
    run = run_of(tmp_path / "run", model, method={"kl": {"reference": "average", "decay": 0.9}})
    reference = trainers[0].learner.annotator.reference
    assert reference is not None
    # Only A and B exist twice.
    assert reference.policy.root is trainers[0].model.root
    names = [name for name, _ in reference.policy.model.named_parameters()]
    adapted = [name for name in names if ".lora_" in name]
    assert len(names) - len(adapted) == len(load_file(model / "model.safetensors"))
    assert len(adapted) == 2 * len(weights(run, 1))
    average = {name: t.double() * (".lora_A." in name) for name, t in weights(run, 1, "reference").items()}
    average = {n: ((t - 0.1 * weights(run, 1)[n].double()) / 0.9 if ".lora_A." in n else t) for n, t in average.items()}
    for step in (1, 2, 3, 4):
        policy, found = weights(run, step), weights(run, step, "reference")
        for name in average:
            average[name] = 0.9 * average[name] + 0.1 * policy[name].double()
            torch.testing.assert_close(found[name].double(), average[name], rtol=0, atol=1e-6)


def test_a_reference_that_is_reset_is_the_adapter_of_every_second_step(model: Path, tmp_path: Path) -> None:
    run = run_of(tmp_path / "run", model, method={"kl": {"reference": "reset", "reset_every": 2}})
    assert not any(t.any() for name, t in weights(run, 1, "reference").items() if ".lora_B." in name)
    for step, wanted in {2: 2, 3: 2, 4: 4}.items():
        found, expected = weights(run, step, "reference"), weights(run, wanted)
        assert all(torch.equal(found[name], expected[name]) for name in expected), step


# The next stage


def test_a_run_goes_on_with_the_adapter_of_another_and_holds_on_to_it(
    begun: Path, model: Path, tmp_path: Path, trainers: list[Trainer]
) -> None:
    run = run_of(tmp_path / "run", begun)
    first = load_file(begun / "checkpoints/step_000004/adapter_model.safetensors")
    reference = trainers[0].learner.annotator.reference
    assert reference is not None
    # As the files name it: of the same base, the adapter that the run began with.
    held = {n.replace(".default.", "."): p for n, p in adapter_weights(reference.policy.model, None, REFERENCE).items()}
    assert all(torch.equal(held[name.removeprefix("base_model.model.")], t) for name, t in first.items())
    assert all(not torch.equal(t, first[name]) for name, t in weights(run, STEPS).items())
    config = json.loads((run.model / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == str(model)
    assert 0 < run.metric_rows()[0]["kl"] < run.metric_rows()[1]["kl"]


def test_without_lora_all_weights_of_the_merged_model_are_trained(begun: Path, tmp_path: Path) -> None:
    run = run_of(tmp_path / "run", begun, model={}, optimizer={"learning_rate": 1e-9}, training={"steps": 1})
    found = load_file(run.model / "model.safetensors")
    expected = load_policy(begun / "checkpoints/step_000004", device="cpu").model.state_dict()
    assert found.keys() == expected.keys()
    assert all((found[name] - expected[name]).abs().max() < 1e-6 for name in found)


def test_another_rank_than_the_adapter_has_is_refused_with_the_remedy(begun: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"the adapter has rank 2 and alpha 4 on down_proj, .*`sharpen merge` it"):
        run_of(tmp_path / "run", begun, model={"lora": {"rank": 3, "alpha": 4}})
    assert not (tmp_path / "run").exists()


def test_a_reward_model_with_an_adapter_scores_and_its_critic_goes_on_with_it(
    model: Path, tmp_path: Path, trainers: list[Trainer]
) -> None:
    judge = run_of(tmp_path / "judge", model, "reward_model", checkpoint={"every": 2, "keep": 9, "best": None})
    scorer = load_scorer(judge.model, kind="sequence", device="cpu")
    assert scorer.head.weight.any()
    run = start(
        recipe_of(
            tmp_path / "run",
            model,
            "ppo",
            reward={"name": "reward_model", "path": str(judge.path), "device": "cpu"},
            training={"steps": 1},
            optimizer={"learning_rate": 1e-9},
        )
    )
    critic = trainers[1].learner.models["critic"]
    trained, first = (
        adapter_weights(critic.model, critic.head_name),
        load_file(judge.model / "adapter_model.safetensors"),
    )
    for name, tensor in first.items():
        own = name.removeprefix("base_model.model.").replace("A.weight", "A.default.weight")
        own = own.replace("B.weight", "B.default.weight")
        torch.testing.assert_close(trained[own].data, tensor, rtol=0, atol=1e-6)
    assert run.metric_rows()[0]["reward/reward_model"] == pytest.approx(run.metric_rows()[0]["reward/mean"])


def test_what_model_lora_says_is_checked(model: Path, tmp_path: Path) -> None:
    for lora, message in (
        ({"rnak": 4}, r"unknown setting `model\.lora\.rnak`\. Did you mean `model\.lora\.rank`"),
        ({"dropout": 0.1}, r"unknown setting `model\.lora\.dropout`"),
        ({"rank": 0}, r"`model\.lora\.rank`: Input should be greater than or equal to 1"),
        ({"targets": []}, r"name at least one layer, or use all-linear"),
        ({"targets": ["q_porj"]}, r"model\.lora\.targets: `q_porj` is not a linear layer of this model"),
    ):
        with pytest.raises(RecipeError, match=message):
            run_of(tmp_path / "run", model, model={"lora": lora})
    assert not (tmp_path / "run").exists()


# Law 5


VARIANTS: dict[str, dict[str, Any]] = {
    "sft": {"name": "sft"},
    "grpo": {"name": "grpo", "group_size": 4, "beta": 0.1, "updates_per_rollout": 2, "kl": {"estimator": "exact"}},
    "grpo average": {"name": "grpo", "beta": 0.04, "kl": {"reference": "average", "decay": 0.7}},
    "grpo reset": {"name": "grpo", "beta": 0.04, "kl": {"reference": "reset", "reset_every": 3}},
    "grpo going on": {"name": "grpo", "beta": 0.04},
    "ppo": {"name": "ppo", "beta": 0.1},
    "ppo shared": {"name": "ppo", "critic": "shared"},
    "dpo": {"name": "dpo"},
    "reward_model": {"name": "reward_model"},
}
LEAVES = {
    "grpo average": {"reference/adapter_model.safetensors"},
    "grpo reset": {"reference/adapter_model.safetensors"},
    "ppo": {"critic/adapter_model.safetensors", "trainer/optimizer_critic.safetensors"},
    "ppo shared": {"value_head.safetensors"},
}
ALWAYS = {
    "adapter_model.safetensors",
    "trainer/optimizer.safetensors",
    "trainer/state.json",
    "metrics",
    "samples",
    "held_out",
}


IN_BFLOAT16 = ("grpo", "grpo going on", "ppo")


@pytest.mark.parametrize(
    ("name", "dtype"), [*((name, "float32") for name in VARIANTS), *((name, "bfloat16") for name in IN_BFLOAT16)]
)
def test_cut_off_and_resumed_it_ends_bit_for_bit_the_same(
    name: str, dtype: str, model: Path, begun: Path, reward: str, tmp_path: Path
) -> None:
    """After step 1 there is no checkpoint yet; after step 3 the one of step 2."""

    def recipe(path: str) -> Any:
        changes: dict[str, Any] = {"method": VARIANTS[name], "reward": reward, "checkpoint": {"every": 2, "best": None}}
        settings = {"lora": LORA, "compute_dtype": dtype}
        begin = begun if name.endswith("going on") else model
        return recipe_of(tmp_path / path, begin, VARIANTS[name]["name"], model=settings, **changes)

    assert start(recipe("whole")).finished
    whole = left_behind(tmp_path / "whole", STEPS)
    assert whole.keys() == ALWAYS | LEAVES.get(name, set())
    assert all(row["grad_norm"] > 0 for row in whole["metrics"] if row["step"])
    with pytest.raises(PowerCut):
        start(recipe("cut"), loggers=[cut_off(1)])
    with pytest.raises(PowerCut):
        resume(tmp_path / "cut", loggers=[cut_off(3)])
    assert resume(tmp_path / "cut").finished
    assert_left_the_same(tmp_path / "cut", whole, STEPS)


def test_the_best_of_a_reward_model_is_centred_in_its_adapter(
    model: Path, tmp_path: Path, trainers: list[Trainer]
) -> None:
    """The mean score on the demonstrations is 0, of the best checkpoint as of the last."""
    settings = {
        "evaluation": {"every": 1, "prompts": 6},
        "checkpoint": {"every": 1, "keep": 9, "best": "loss"},
        "optimizer": {"learning_rate": 0.5},
    }
    run = run_of(tmp_path / "run", model, "reward_model", **settings)
    losses = {row["step"]: row["held_out/loss"] for row in run.metric_rows() if row["step"]}
    best = min(losses, key=lambda step: losses[int(step)])
    assert best < STEPS
    for step in (int(best), STEPS):
        folder = run.path / "checkpoints" / f"step_{step:06d}"
        assert not (folder / "model.safetensors").exists()
        scorer = load_scorer(folder, kind="sequence", device="cpu")
        assert scorer.head.weight.any()
        score_normalisation = trainers[0].score_normalisation
        assert score_normalisation is not None
        assert score_normalisation.centre(scorer)["score/shifted_by"] == pytest.approx(0.0, abs=1e-5)


def changed(model: Path, folder: Path) -> Path:
    """The model with one number of one matrix another."""
    shutil.copytree(model, folder)
    tensors = load_file(folder / "model.safetensors")
    tensors["model.layers.1.mlp.up_proj.weight"][0, 0] += 1e-6
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


@pytest.mark.parametrize("beta", [0.0, 0.04])
def test_another_base_is_named_and_refused(beta: float, model: Path, reward: str, tmp_path: Path) -> None:
    path = tmp_path / "run"
    recipe = recipe_of(path, model, "grpo", reward=reward, method={"beta": beta})
    with pytest.raises(PowerCut):
        start(recipe, loggers=[cut_off(2)])
    other = changed(model, tmp_path / "other")
    written = path / "recipe.yaml"
    text = written.read_text()
    written.write_text(text.replace(str(model), str(other)))
    with pytest.raises(ModelError, match=f"{other}: not the base model that the adapter was trained on"):
        resume(path)
    written.write_text(text.replace("rank: 2", "rank: 3"))
    with pytest.raises(ModelError, match=r"the adapter has rank 2 and alpha 4 on .*, unlike model\.lora"):
        resume(path)
    without = text[: text.index("  lora:")] + text[text.index("method:") :]
    written.write_text(without)
    with pytest.raises(ModelError, match=r"`model\.lora` is not what it was: it decides"):
        resume(path)
    written.write_text(text)
    assert resume(path).finished


def test_lora_cannot_be_turned_on_in_the_middle(model: Path, reward: str, tmp_path: Path) -> None:
    path = tmp_path / "run"
    with pytest.raises(PowerCut):
        start(recipe_of(path, model, "grpo", reward=reward, model={}), loggers=[cut_off(2)])
    written = path / "recipe.yaml"
    written.write_text(written.read_text().replace("lora: null", "lora: {rank: 2, alpha: 4}"))
    with pytest.raises(ModelError, match=r"step_000001: holds a whole model, but model\.lora needs an adapter"):
        resume(path)


def test_another_start_adapter_is_refused_where_it_is_the_reference(
    begun: Path, model: Path, reward: str, tmp_path: Path
) -> None:
    shutil.copytree(begun, tmp_path / "sft")
    path = tmp_path / "run"
    with pytest.raises(PowerCut):
        start(recipe_of(path, tmp_path / "sft", "grpo", reward=reward), loggers=[cut_off(2)])
    adapter = tmp_path / "sft/checkpoints/step_000004"
    earlier = tmp_path / "sft/checkpoints/step_000003"
    shutil.rmtree(adapter)
    assert earlier.is_dir()
    with pytest.raises(ChangedError, match="- the reference model has other weights"):
        resume(path)


def test_a_run_on_a_mixture_with_a_shared_expert_leaves_an_adapter_that_is_measured_and_merged(tmp_path: Path) -> None:
    """Its dense layers and its shared expert are trained, its experts are not."""
    base = tiny_folder(tmp_path / "base", "deepseek_v3", spread=0.2, **MIXTURES["deepseek_v3"])
    changes = {"evaluation": {"every": 2, "prompts": 4}}
    recipe = given(recipe_of(tmp_path / "run", base, "sft", **changes), {"reward": digits})
    run = start(recipe)
    trained = {name.partition(".lora_")[0].rpartition(".mlp.")[2] for name in weights(run, STEPS) if ".mlp." in name}
    assert trained == {f"{part}{x}_proj" for part in ("", "shared_experts.") for x in ("gate", "up", "down")}
    assert all(t.any() for n, t in weights(run, STEPS).items() if ".lora_B." in n)
    measured = measure(recipe, read_held_out(recipe), run.path).measures
    row = run.metric_rows()[-1]
    assert measured
    assert all(row[f"held_out/{name}"] == estimate.mean for name, estimate in measured.items())
    adapter, merged = (load_policy(path, device="cpu").model for path in (run.model, merge(run.model, tmp_path / "m")))
    ids = torch.tensor([[5, 9, 3, 12, 7]])
    with torch.no_grad():
        found, expected, before = (
            m(input_ids=ids).logits.log_softmax(-1) for m in (merged, adapter, load_policy(base, device="cpu").model)
        )
    assert torch.equal(found, expected)
    assert (found - before).abs().max() > 0.1
