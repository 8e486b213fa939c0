"""``sharpen eval`` of a run measures what the run measured itself, and an option changes that one setting."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file, save_file
from test_cli import call, complaint, metrics

from one_thread import one_thread
from sharpen.data.tasks.arithmetic import ALPHABET
from sharpen.launch.run import start
from sharpen.models.character_model import create_character_model
from sharpen.recipe.loading import load_recipe
from tiny_runs import TASK, merge

__all__ = ["one_thread"]

TEMPLATE = "{% for m in messages %}{{ m['role'][0] }}:{{ m['content'] }};{% endfor %}{{ mark }}a:"
OTHER = "7" + TEMPLATE
REWARD = """
def digits(completion):
    if completion.startswith("7"):
        raise ValueError("no sevens")
    return sum(c.isdigit() for c in completion) / 8
"""
RANKED = [
    {"prompt": "1+2=", "chosen": "#3", "rejected": "#4"},
    {"prompt": "7-7=", "chosen": "7-7=0#0", "rejected": "#7"},
    {"prompt": "4+4=", "chosen": "#8", "rejected": "#98"},
    {"prompt": "5-2=", "chosen": "#3", "rejected": "##"},
]
Recipe = dict[str, Any]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny model that has a chat template, rows, a reward, and the run ``grpo`` of three steps."""
    folder = tmp_path_factory.mktemp("eval")
    start_model(folder / "model")
    (folder / "rewards.py").write_text(REWARD)
    sums = [{"prompt": f"{a}+{b}=", "answer": str(a + b)} for a in range(3) for b in range(3)]
    too_long = {"prompt": "1+" * 20 + "1=", "answer": "21"}
    write_rows(folder / "train.jsonl", sums)
    write_rows(folder / "held_out.jsonl", [*sums[4:6], too_long, *sums[6:]])
    write_rows(folder / "ranked.jsonl", RANKED)
    marked = [{"prompt": r["prompt"], "completions": ["1+1=2;", r["chosen"]], "labels": [True, False]} for r in RANKED]
    write_rows(folder / "marked.jsonl", marked)
    write_rows(folder / "shown.jsonl", [{"prompt": r["prompt"], "completion": r["chosen"]} for r in RANKED])
    carry_out(folder, "grpo", grpo(folder))
    return folder


def start_model(path: Path, seed: int = 0) -> Path:
    """Untrained, with weights so large that what it says depends on what it is asked."""
    sizes = {"hidden": 16, "intermediate": 24, "layers": 2, "heads": 2, "context": 48}
    create_character_model(path, alphabet=ALPHABET + "aus:!", seed=seed, **sizes)
    weights = load_file(path / "model.safetensors")
    large = {name: tensor if tensor.dim() == 1 else 8 * tensor for name, tensor in weights.items()}
    save_file(large, path / "model.safetensors", metadata={"format": "pt"})
    settings = json.loads((path / "tokenizer_config.json").read_text())
    (path / "tokenizer_config.json").write_text(json.dumps({**settings, "chat_template": TEMPLATE}))
    return path


def write_rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def grpo(folder: Path) -> Recipe:
    """A recipe with nothing that decides a measure left at its default."""
    return {
        "seed": 11,
        "model": {"path": str(folder / "model"), "compute_dtype": "bfloat16", "device": "cpu"},
        "method": {"name": "grpo", "group_size": 4},
        "data": {
            "train": str(folder / "train.jsonl"),
            "held_out": str(folder / "held_out.jsonl"),
            "chat": True,
            "system": "1",
            "chat_template_kwargs": {"mark": "!!"},
            "overlong": "drop",
        },
        "reward": [
            f"{folder / 'rewards.py'}:digits",
            {"name": "soft_overlong", "l_max": 8, "l_cache": 6, "weight": 0.5},
            {"name": "exact_answer", "weight": 0.25},
        ],
        "rollout": {"max_new_tokens": 8, "stop": ["9"], "engine": {"max_sequences": 5}, "max_reward_failures": 0.6},
        "optimizer": {"learning_rate": 0.02},
        "training": {"steps": 3, "prompts_per_step": 3},
        "evaluation": {
            "every": 1,
            "prompts": 5,
            "n": 3,
            "k": [1, 3],
            "threshold": -0.1,
            "temperature": 0.8,
            "top_k": 19,
            "top_p": 0.97,
            "min_p": 0.01,
        },
        "checkpoint": {"every": 1, "best": "length"},
    }


def learned_from(folder: Path, method: Any, rows: str, **changes: Any) -> Recipe:
    """A recipe of a method that learns from rows of completions, which are its held-out rows too."""
    tree = {
        "seed": 11,
        "model": {"path": str(folder / "model"), "compute_dtype": "bfloat16", "device": "cpu"},
        "method": method,
        "data": {"train": str(folder / rows), "held_out": str(folder / rows), "chat": True, "system": "1"},
        "optimizer": {"learning_rate": 0.02},
        "training": {"steps": 3, "prompts_per_step": 2},
        "evaluation": {"every": 1, "prompts": 3},
    }
    return merge(tree, changes)


def carry_out(folder: Path, name: str, recipe: Recipe, *overrides: str) -> Path:
    run = folder / name
    path = folder / f"{name}.yaml"
    path.write_text(json.dumps({"run": str(run), **recipe}))
    start(load_recipe(path, overrides))
    return run


def evaluated(*arguments: object) -> dict[str, Any]:
    result = call("eval", *arguments, "--json")
    assert result.exit_code == 0, result.output
    said: dict[str, Any] = json.loads(result.stdout)
    return said


def in_the_run(row: dict[str, float]) -> dict[str, dict[str, float | None]]:
    """The held-out measures of a row of metrics, as ``sharpen eval --json`` prints them."""
    found = {key.removeprefix("held_out/"): value for key, value in row.items() if key.startswith("held_out/")}
    return {
        name: {"mean": mean, "low": found.get(f"{name}_low"), "high": found.get(f"{name}_high")}
        for name, mean in found.items()
        if not name.endswith(("_low", "_high"))
    }


def settings(said: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in said.items() if key not in ("model", "data", "measures", "from_run")}


@pytest.fixture(scope="module")
def usual(folder: Path) -> dict[str, Any]:
    """What is said of the run ``grpo`` without any option."""
    return evaluated(folder / "grpo")


def test_a_run_is_measured_as_it_measured_itself(folder: Path, usual: dict[str, Any]) -> None:
    """To the last bit, whatever its settings; the header says that they are the run's."""
    said = usual
    rows = metrics(folder / "grpo")
    assert said["measures"] == in_the_run(rows[-1])
    assert said["measures"] != in_the_run(rows[-2])
    assert {"pass@1", "pass@3", "maj@3", "reward/soft_overlong", "reward/digits"} < said["measures"].keys()
    assert 0 < said["measures"]["pass@1"]["mean"] < 1
    assert settings(said) == {
        "prompts": 5,
        "n": 3,
        "k": [1, 3],
        "threshold": -0.1,
        "temperature": 0.8,
        "top_k": 19,
        "top_p": 0.97,
        "min_p": 0.01,
        "seed": 11,
        "max_new_tokens": 8,
        "stop": ["9"],
        "max_sequences": 5,
        "kv_gib": None,
        "max_reward_failures": 0.6,
        "columns": {},
        "chat": True,
        "system": "1",
        "chat_template_kwargs": {"mark": "!!"},
        "chat_template": None,
        "date": None,
        "overlong": "drop",
        "dtype": "bfloat16",
        "device": "cpu",
        "reward": grpo(folder)["reward"],
    }
    assert set(said["from_run"]) == {*settings(said), "data"}
    assert said["data"] == str(folder / "held_out.jsonl")
    shown = call("eval", folder / "grpo")
    assert "left out 1 of 6 rows" in shown.stderr
    assert "5 prompts of" in shown.stdout
    assert "threshold=-0.1" in shown.stdout


def test_a_checkpoint_of_a_run_is_measured_with_the_settings_of_the_run(folder: Path) -> None:
    checkpoint = folder / "grpo" / "checkpoints" / "step_000002"
    said = evaluated(checkpoint)
    assert said["model"] == str(checkpoint)
    assert said["measures"] == in_the_run(metrics(folder / "grpo")[2])


@pytest.mark.parametrize(
    ("setting", "option", "value", "override"),
    [
        ("n", "--n", 4, "evaluation.n=4"),
        ("k", "--k", "2,3", "evaluation.k=[2,3]"),
        ("prompts", "--prompts", 3, "evaluation.prompts=3"),
        ("threshold", "--threshold", 0.2, "evaluation.threshold=0.2"),
        ("temperature", "--temperature", 2.5, "evaluation.temperature=2.5"),
        ("top_k", "--top-k", 2, "evaluation.top_k=2"),
        ("top_p", "--top-p", 0.4, "evaluation.top_p=0.4"),
        ("min_p", "--min-p", 0.9, "evaluation.min_p=0.9"),
        ("seed", "--seed", 5, "seed=5"),
        ("max_new_tokens", "--max-new-tokens", 4, "rollout.max_new_tokens=4"),
        ("stop", "--stop", "3", "rollout.stop=['3']"),
        ("system", "--system", "77", "data.system='77'"),
        ("chat_template_kwargs", "--chat-template-kwargs", "{mark: ''}", "data.chat_template_kwargs.mark=''"),
        ("chat_template", "--chat-template", OTHER, f"data.chat_template={OTHER!r}"),
    ],
)
def test_an_option_changes_that_setting_alone(
    folder: Path, usual: dict[str, Any], setting: str, option: str, value: object, override: str
) -> None:
    """As a run with that one setting changed measures the model that it begins with."""
    checkpoint = folder / "grpo" / "checkpoints" / "step_000003"
    begun = (f"model.path={checkpoint}", "training.steps=1")
    other = carry_out(folder, f"with_{setting}", grpo(folder), *begun, override)
    said = evaluated(folder / "grpo", option, value)
    assert said["measures"] == in_the_run(metrics(other)[0])
    assert said["measures"] != usual["measures"]
    assert {key for key in settings(said) if settings(said)[key] != settings(usual)[key]} == {setting}
    assert set(usual["from_run"]) - set(said["from_run"]) == {setting}


def test_columns_of_other_names_are_those_that_are_named(folder: Path, usual: dict[str, Any]) -> None:
    rows = [json.loads(line) for line in (folder / "held_out.jsonl").read_text().splitlines()]
    write_rows(folder / "other_names.jsonl", [{"asked": row["prompt"], "answer": row["answer"]} for row in rows])
    arguments = (folder / "grpo", "--data", folder / "other_names.jsonl")
    assert evaluated(*arguments, "--columns", "{prompt: asked}")["measures"] == usual["measures"]
    assert "no column `prompt` or `messages`; it has `asked`, `answer`" in complaint("eval", *arguments)
    assert "no column `ask`, which `data.columns` reads as `prompt`" in complaint(
        "eval", *arguments, "--columns", "{prompt: ask}"
    )
    refused = complaint("eval", folder / "grpo", "--task", "sums", "--columns", "{prompt: asked}")
    assert "no effect of --columns: a task names its own columns" in refused


def test_plain_text_instead_of_a_chat(folder: Path) -> None:
    recipe = merge(grpo(folder), {"data": {"system": None}})
    del recipe["data"]["chat_template_kwargs"]
    checkpoint = carry_out(folder, "asked_as_user", recipe, "training.steps=1") / "checkpoints" / "step_000001"
    begun = (f"model.path={checkpoint}", "data.chat=false", "training.steps=1")
    plain = carry_out(folder, "plain", recipe, *begun)
    usual, said = evaluated(checkpoint), evaluated(checkpoint, "--no-chat")
    assert said["measures"] == in_the_run(metrics(plain)[0])
    assert said["measures"] != usual["measures"]
    assert {key for key in settings(said) if settings(said)[key] != settings(usual)[key]} == {"chat"}
    refused = complaint("eval", folder / "grpo", "--no-chat")
    assert "no effect of `data.system` and `data.chat_template_kwargs`: the prompts are plain text" in refused


GROUPS = {
    "sft": ("sft", "shown.jsonl", {}, {"loss"}),
    "dpo": ({"name": "dpo", "beta": 0.3}, "ranked.jsonl", {}, {"loss", "pair_accuracy", "pair_margin"}),
    "dpo_lora": (
        {"name": "dpo", "beta": 0.3},
        "ranked.jsonl",
        {"model": {"lora": {"rank": 2}}},
        {"loss", "pair_accuracy", "pair_margin"},
    ),
    "process_reward_model": ("process_reward_model", "marked.jsonl", {}, {"loss", "step_accuracy"}),
    "reward_model": ("reward_model", "ranked.jsonl", {}, {"loss", "pair_accuracy", "pair_margin", "score"}),
    "reward_model_lora": (
        "reward_model",
        "ranked.jsonl",
        {"model": {"lora": {"rank": 2}}},
        {"loss", "pair_accuracy", "pair_margin", "score"},
    ),
}


@pytest.mark.parametrize("name", GROUPS)
def test_a_run_that_is_measured_by_its_loss(folder: Path, name: str) -> None:
    method, rows, changes, names = GROUPS[name]
    run = carry_out(folder, name, learned_from(folder, method, rows, **changes))
    said = evaluated(run)
    assert said["measures"] == in_the_run(metrics(run)[-1])
    assert said["measures"] != in_the_run(metrics(run)[-2])
    assert said["measures"].keys() == names
    assert settings(said) == {
        "prompts": 3,
        "columns": {},
        "chat": True,
        "system": "1",
        "chat_template_kwargs": {},
        "chat_template": None,
        "date": None,
        "overlong": "error",
        "dtype": "bfloat16",
        "device": "cpu",
    }
    exact = evaluated(run, "--dtype", "float32")
    assert exact["dtype"] == "float32"
    assert exact["measures"]["loss"]["mean"] != said["measures"]["loss"]["mean"]
    assert exact["measures"]["loss"]["mean"] == pytest.approx(said["measures"]["loss"]["mean"], rel=0.2)
    assert "3 rows of" in call("eval", run).stdout


def test_a_lora_run_is_measured_with_its_adapter_unmerged_as_in_the_run(folder: Path) -> None:
    run = carry_out(folder, "lora", merge(grpo(folder), {"model": {"lora": {"rank": 2}}}))
    assert evaluated(run)["measures"] == in_the_run(metrics(run)[-1])


def test_a_reference_that_has_changed_is_refused(folder: Path, tmp_path: Path) -> None:
    recipe = learned_from(folder, "dpo", "ranked.jsonl", model={"path": str(tmp_path / "model")})
    start_model(tmp_path / "model")
    run = carry_out(tmp_path, "dpo", recipe)
    assert evaluated(run)["measures"] == in_the_run(metrics(run)[-1])
    start_model(tmp_path / "model", seed=9)
    assert "not what this run was started with: the reference model has other weights" in complaint("eval", run)


def test_what_has_no_effect_is_refused(folder: Path) -> None:
    judge = carry_out(folder, "judge", learned_from(folder, "reward_model", "ranked.jsonl"), "training.steps=1")
    said = complaint("eval", judge, "--n", 4, "--temperature", 0.5, "--reward", "exact_answer")
    assert "no effect of --n, --temperature, --reward: reward_model is measured by its loss" in said
    assert "no effect of --out" in complaint("eval", judge, "--out", folder / "answers.parquet")
    shown = carry_out(folder, "shown", learned_from(folder, "sft", "shown.jsonl"), "training.steps=1")
    assert "give --task, or --reward, to measure answers" in complaint("eval", shown, "--n", 4)
    assert "no effect of --top-k: at temperature 0" in complaint(
        "eval", folder / "grpo", "--temperature", 0, "--top-k", 3
    )
    assert "pass@3 needs n >= 3" in complaint("eval", folder / "grpo", "--n", 2)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_device_that_is_not_there(folder: Path) -> None:
    assert "PyTorch finds no GPU on this machine: use auto or cpu" in complaint(
        "eval", folder / "grpo", "--device", "cuda"
    )


def test_a_policy_of_demonstrations_is_asked_where_a_reward_or_task_is_given(folder: Path, tmp_path: Path) -> None:
    run = carry_out(
        folder, "asked", learned_from(folder, "sft", "shown.jsonl", data={"system": None}), "rollout.max_new_tokens=6"
    )
    write_rows(tmp_path / "sums.jsonl", [{"prompt": "1+1=", "answer": "2"}])
    said = evaluated(
        run,
        "--data",
        tmp_path / "sums.jsonl",
        "--reward",
        "{name: regex, pattern: '.*', mode: search}",
        "--out",
        tmp_path / "answers.parquet",
    )
    assert said["measures"]["pass@1"]["mean"] == 1.0
    assert (said["n"], said["max_new_tokens"], said["dtype"], said["seed"]) == (1, 6, "bfloat16", 11)
    assert not {"data", "reward"} & set(said["from_run"])
    assert len(pq.read_table(tmp_path / "answers.parquet").to_pylist()) == 1
    assert "reward" in evaluated(run, "--task", TASK)["measures"]
    assert "loss" in evaluated(run, "--data", folder / "shown.jsonl", "--prompts", 2)["measures"]


def test_other_rows_keep_the_reward_of_the_run(folder: Path, tmp_path: Path) -> None:
    write_rows(tmp_path / "one.jsonl", [{"prompt": "1+1=", "answer": "2"}])
    said = evaluated(folder / "grpo", "--data", tmp_path / "one.jsonl")
    assert "reward/soft_overlong" in said["measures"]
    assert "data" not in said["from_run"]
    assert "reward" in said["from_run"]


def test_what_was_given_in_python_has_to_be_given_again(folder: Path, tmp_path: Path) -> None:
    run = carry_out(tmp_path, "python", grpo(folder), "training.steps=1")
    recipe = (run / "recipe.yaml").read_text()
    (run / "recipe.yaml").write_text(recipe.replace(str(folder / "held_out.jsonl"), "<given in Python>"))
    assert complaint("eval", run).endswith("its run was given rows or a reward in Python; give --data")
    assert evaluated(run, "--data", folder / "held_out.jsonl")["measures"] == in_the_run(metrics(run)[-1])


@pytest.fixture(scope="module")
def mixed(folder: Path) -> Path:
    """A run of two sources, of which one asks in a chat."""
    tree = grpo(folder)
    rows = {key: tree["data"].pop(key) for key in ("train", "held_out", "chat", "system", "chat_template_kwargs")}
    own = {"chat": True, "system": "1", "chat_template_kwargs": {"mark": "!!"}}
    tree["data"]["sources"] = {
        "asked": {"train": rows["train"], "held_out": rows["held_out"], "share": 2, **own},
        "sums": {"task": TASK},
    }
    return carry_out(folder, "mixed", tree)


def test_a_run_of_several_sources_is_measured_as_it_measured_itself(folder: Path, mixed: Path) -> None:
    said = evaluated(mixed)
    assert said["measures"] == in_the_run(metrics(mixed)[-1])
    assert {"pass@1", "asked/pass@1", "sums/pass@1", "asked/maj@3", "sums/maj@3"} < said["measures"].keys()
    # Five prompts of each, as evaluation.prompts says.
    assert said["prompts"] == 10
    assert said["data"].startswith(f"source asked, {folder / 'held_out.jsonl'}, source sums, arithmetic")
    answers = folder / "mixed.parquet"
    evaluated(mixed, "--out", answers)
    rows = pq.read_table(answers).to_pylist()
    assert [row["source"] for row in rows] == ["asked"] * 15 + ["sums"] * 15
    for name in ("asked", "sums"):
        own = [row["right"] for row in rows if row["source"] == name]
        assert said["measures"][f"{name}/pass@1"]["mean"] == pytest.approx(sum(own) / 15)


def test_a_run_of_several_sources_is_measured_on_others(folder: Path, mixed: Path) -> None:
    task = evaluated(mixed, "--task", TASK)
    assert "sums/pass@1" not in task["measures"]
    assert task["prompts"] == 5
    said = evaluated(mixed, "--data", folder / "held_out.jsonl", "--reward", "exact_answer")
    assert (said["prompts"], said["reward"]) == (5, "exact_answer")


def test_an_option_holds_for_every_source(folder: Path, mixed: Path) -> None:
    """A reward that the answers of both get, whatever each source has of its own."""
    (folder / "all_right.py").write_text("def all_right(completion, **row):\n    return 1.0\n")
    said = evaluated(mixed, "--reward", f"{folder / 'all_right.py'}:all_right")
    assert [said["measures"][f"{name}/pass@1"]["mean"] for name in ("asked", "sums")] == [1, 1]
