"""Every setting of a recipe from Python, and what is refused before a model is loaded."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from datasets import Dataset, DatasetDict

import sharpen
from api_runs import ROWS, SMALL, digit_model, first_digit, never, redo, untimed
from sharpen.data.settings import SourceSettings
from sharpen.errors import DataError, RecipeError
from sharpen.in_memory import IN_MEMORY
from sharpen.launch.run import Run
from sharpen.methods import GRPO, Mixed, ProcessRewardModel
from sharpen.models.settings import LoraSettings
from sharpen.recipe.loading import load_recipe
from sharpen.recipe.schema import Recipe


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return digit_model(tmp_path_factory.mktemp("api") / "model")


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[Recipe]:
    """What `train` would have started, in place of a run."""
    calls: list[Recipe] = []

    def start(recipe: Recipe, **settings: Any) -> Run:
        calls.append(recipe)
        return Run(recipe.run, recipe.run, finished=True)

    monkeypatch.setattr("sharpen.api.start", start)
    return calls


class WithEverything(GRPO):
    """A method for which each setting of a recipe has an effect."""

    name = "with_everything"

    def mixed(self) -> Mixed:
        return Mixed(ProcessRewardModel(), 1.0, 1)

    @property
    def normalises_scores(self) -> bool:
        return True


# A value other than the default of each.
VALUES: dict[str, Any] = {
    "run": "runs/x",
    "seed": 11,
    "model": {
        "path": "models/mine",
        "compute_dtype": "bfloat16",
        "gradient_checkpointing": True,
        "compiled": False,
        "device": "cuda:0",
        "lora": {"rank": 3, "alpha": 5, "targets": ["q_proj"]},
    },
    "method": {"name": f"{__file__}:WithEverything", "group_size": 3, "tis_cap": 2.0},
    "data": {
        "train": "a.jsonl",
        "held_out": "b.jsonl",
        "columns": {"prompt": "question", "answer": "solution"},
        "chat": True,
        "system": "A number such as ${5}.",
        "chat_template_kwargs": {"tools": [{"name": "look"}]},
        "chat_template": "{{ '${x}' }}",
        "date": "2024-07-26",
        "overlong": "drop",
        "step_separator": ";",
        "demonstrations": "c.jsonl",
        "mixed": "d.jsonl",
    },
    "reward": {"name": "regex", "pattern": r"\\frac\${1}", "weight": 0.5},
    "reward_check": {"rows": 7, "cheat_rows": 6, "reference": "answer", "allow": ["empty"], "timeout_s": 3.0},
    "rollout": {
        "max_new_tokens": 9,
        "temperature": 0.5,
        "stop": [";"],
        "engine": {"name": "local", "max_sequences": 5, "kv_gib": 0.5, "settings": {}},
        "turns": "game.py:reply",
        "max_turns": 3,
        "turn_timeout_s": 5.0,
        "flow": "free",
        "lag": 2,
        "max_reward_failures": 0.5,
        # Training allows no others.
        "top_p": 1.0,
        "top_k": 0,
        "min_p": 0.0,
    },
    "optimizer": {
        "learning_rate": 0.5,
        "betas": [0.5, 0.25],
        "eps": 0.5,
        "weight_decay": 0.5,
        "warmup_steps": 3,
        "schedule": "linear",
        "min_ratio": 0.5,
        "max_grad_norm": None,
    },
    "training": {"steps": 3, "prompts_per_step": 5, "tokens_per_microbatch": 50, "shared_prompt": False},
    "evaluation": {
        "every": 2,
        "prompts": 3,
        "n": 4,
        "k": [1, 4],
        "threshold": 0.5,
        "temperature": 0.5,
        "top_p": 0.5,
        "top_k": 3,
        "min_p": 0.25,
    },
    "checkpoint": {"every": 2, "every_minutes": 2.5, "grace_s": 7.0, "keep": 5, "best": "reward", "dtype": "bfloat16"},
    "log": {"samples_every": 2, "tokens_every": 4, "loggers": ["tensorboard", {"name": "wandb", "project": "w"}]},
}


@pytest.mark.parametrize("name", Recipe.model_fields)
def test_every_setting_of_a_recipe_can_be_given(name: str, started: list[Recipe], tmp_path: Path) -> None:
    """All of VALUES holds every setting there is, and what the run saves has them as they were given."""
    section, others = getattr(Recipe.model_fields[name].annotation, "model_fields", None), set[str]()
    if section is not None and name != "method":
        # Instead of `train`.
        others |= {"task", "sources"} if name == "data" else set()
        assert VALUES[name].keys() | others == section.keys()
        defaults = {key: field.default for key, field in section.items() if not key.startswith(("top_", "min_p"))}
        assert all(VALUES[name].get(key) != default for key, default in defaults.items() if key not in others)
    assert VALUES["model"]["lora"].keys() == LoraSettings.model_fields.keys()
    sharpen.train(**VALUES, quiet=True)
    (recipe,) = started
    saved = recipe.model_dump(mode="json")
    (tmp_path / "recipe.yaml").write_text(recipe.to_yaml())
    assert load_recipe(tmp_path / "recipe.yaml").model_dump(mode="json") == saved
    found = saved[name]
    if isinstance(found, Mapping):
        found = {key: found[key] for key in VALUES[name]}
    assert found == VALUES[name]
    assert recipe.unnamed() == {}


SOURCE: dict[str, Any] = {
    "share": 2.5,
    "train": "a.jsonl",
    "held_out": "b.jsonl",
    "columns": {"prompt": "question"},
    "reward": [{"name": "regex", "pattern": r"\\frac\${1}"}, "math"],
    "turns": "game.py:reply",
    "max_turns": 3,
    "turn_timeout_s": 5.0,
    "chat": True,
    "system": "Begin.",
    "chat_template_kwargs": {"tools": [{"name": "look"}]},
}


def test_every_setting_of_a_source_can_be_given_and_the_sources_keep_their_order(
    started: list[Recipe], tmp_path: Path
) -> None:
    assert SOURCE.keys() | {"task"} == SourceSettings.model_fields.keys()
    sources = {"z": SOURCE, "a": {"task": "sums"}}
    sharpen.train("m", "grpo", data={"sources": sources, "system": "Go."}, run=tmp_path / "run", quiet=True)
    (recipe,) = started
    (tmp_path / "recipe.yaml").write_text(recipe.to_yaml())
    saved = load_recipe(tmp_path / "recipe.yaml").model_dump(mode="json")
    assert saved == recipe.model_dump(mode="json")
    assert list(saved["data"]["sources"]) == ["z", "a"]
    assert saved["data"]["sources"]["z"] == {**SOURCE, "task": None}
    of_source = recipe.data.by_source()
    assert [(of.train, of.task, of.chat, of.system) for of in of_source.values()] == [
        ("a.jsonl", None, True, "Begin."),
        (None, "sums", False, "Go."),
    ]


def test_what_a_source_is_given_in_python_is_named_by_its_place(started: list[Recipe], tmp_path: Path) -> None:
    rows, turns = [{"prompt": "1"}], lambda prompt, trajectory: None
    own = {"train": rows, "reward": [len, {"name": turns}], "turns": turns}
    sharpen.train("m", "grpo", data={"sources": {"own": own}}, run=tmp_path / "run", quiet=True)
    (recipe,) = started
    assert recipe.unnamed().keys() == {f"data.sources.own.{key}" for key in ("train", "reward", "turns")}
    assert recipe.unnamed()["data.sources.own.train"] is rows


def test_what_to_train_on_may_be_given_in_its_section(started: list[Recipe], tmp_path: Path) -> None:
    rows = [{"prompt": "1"}]
    arguments: dict[str, Any] = {"reward": len, "run": tmp_path / "run", "quiet": True}
    for given in (
        {"train_dataset": rows, "held_out": rows, "data": {"chat": True}},
        {"data": {"train": rows, "held_out": rows, "chat": True}},
    ):
        sharpen.train("m", "grpo", **given, **arguments)
    for recipe in started:
        data = recipe.model_dump(mode="json")["data"]
        assert [data[key] for key in ("train", "held_out", "chat")] == [IN_MEMORY, IN_MEMORY, True]
        assert recipe.unnamed() == {
            "data.train": rows,
            "data.held_out": rows,
            "reward": len,
        }
    sharpen.train("m", "grpo", tmp_path / "a.jsonl", held_out=Path("b.jsonl"), **arguments)
    sharpen.train("m", "grpo", data={"task": "words"}, **arguments)
    sharpen.train({"path": Path("m")}, "grpo", "words", **arguments)
    files, *tasks = started[2:]
    assert (files.data.train, files.data.held_out) == (str(tmp_path / "a.jsonl"), "b.jsonl")
    assert [(task.data.task, task.model.path) for task in tasks] == [("words", "m"), ("words", "m")]


def test_plain_prompts_are_wrapped_as_messages_of_a_user(model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(model, folder)
    (folder / "chat_template.jinja").write_text(
        "{% for m in messages %}={{ m['content'] }}={% endfor %}{% if add_generation_prompt %}+{% endif %}"
    )
    data = {"chat": True, "system": "9"}
    run = sharpen.train(folder, "grpo", ROWS, reward=first_digit, run=tmp_path / "run", quiet=True, data=data, **SMALL)
    rows = pq.read_table(run.path / "samples" / "step_000001.parquet").to_pylist()
    assert {row["prompt"] for row in rows} <= {f"=9=={row['prompt']}=+" for row in ROWS}


def test_demonstrations_in_memory_centre_a_reward_model(model: Path, tmp_path: Path) -> None:
    rows = [{"prompt": "1+1=", "chosen": "2", "rejected": "3"}, {"prompt": "2+2=", "chosen": "4", "rejected": "5"}]
    shown = [{"prompt": "3+3=", "completion": "6"}]
    settings: dict[str, Any] = {"training": {"steps": 1, "prompts_per_step": 2}, "quiet": True}
    named = tmp_path / "shown.jsonl"
    named.write_text(json.dumps(shown[0]) + "\n")
    runs = [
        sharpen.train(model, "reward_model", rows, run=tmp_path / name, data={"demonstrations": given}, **settings)
        for name, given in {"list": shown, "file": named}.items()
    ]
    assert untimed(runs[0]) == untimed(runs[1])
    with pytest.raises(RecipeError, match=r"was given `data\.train`, `data\.demonstrations` in Python"):
        redo(runs[0], quiet=True)


REFUSED: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "data that is no mapping": ({"data": ROWS}, RecipeError, "`data` is a mapping of settings .*, not list"),
    "an unknown setting of data": ({"data": {"chta": True}}, RecipeError, r"Did you mean `data\.chat`"),
    "settings for rows": ({"train_dataset": {"chat": True}}, RecipeError, r"give settings as data=\{...\}"),
    "columns for rows": ({"train_dataset": {"prompt": ["1"]}}, DataError, "rows must be a list of objects.*not dict"),
    "several splits": (
        {"train_dataset": DatasetDict(train=Dataset.from_list(ROWS), test=Dataset.from_list(ROWS))},
        DataError,
        "has the splits train, test; choose one",
    ),
    "rows that are none": ({"train_dataset": [{"prompt": "1"}, 3]}, DataError, "row 2: a row must be an object"),
    "rows and a file": ({"data": {"train": "a.jsonl"}}, RecipeError, r"twice, as train_dataset and as data\['train'\]"),
    "rows and a task": ({"data": {"task": "words"}}, RecipeError, r"twice, as train_dataset and as data\['task'\]"),
    "two held-out sets": (
        {"held_out": ROWS, "data": {"held_out": "a.jsonl"}},
        RecipeError,
        r"twice, as held_out and as data\['held_out'\]",
    ),
    "no rows": ({"train_dataset": None}, RecipeError, "give either `task`"),
    "a template's argument that is no value": (
        {"data": {"chat_template_kwargs": {"f": len}}},
        RecipeError,
        r"`data\.chat_template_kwargs\.f`: input was not a valid JSON value",
    ),
    "a model that is loaded": ({"model": object()}, RecipeError, "`model` is a folder, a hub id or .*, not object"),
    "a class that is no method": ({"method": dict}, RecipeError, r"an object such as GRPO\(\), not <class"),
    "an unknown method": ({"method": {"name": "grop"}}, RecipeError, "Did you mean `grpo`"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_used_is_said_before_a_model_is_loaded(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes, error, message = REFUSED[case]
    monkeypatch.setattr("sharpen.launch.build.load_model", never)
    arguments: dict[str, Any] = {"model": "m", "method": "grpo", "train_dataset": ROWS, "reward": first_digit, **SMALL}
    with pytest.raises(error, match=message):
        sharpen.train(**{**arguments, **changes}, run=tmp_path / "run", quiet=True)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"rollout": 3}, r"resume\(\): `rollout` is a mapping of settings"),
        ({"data": 3}, r"resume\(\): `data` is a mapping of settings"),
        ({"train_dataset": {"chat": True}}, r"resume\(\): `train_dataset` is what to train on; give settings as data="),
        ({"train_dataset": ROWS, "data": {"train": ROWS}}, r"resume\(\): given twice, as train_dataset"),
        ({"method": GRPO, "rollout": {"max_new_tokens": 0}}, r"resume\(\): `rollout.max_new_tokens`: Input should be"),
    ],
)
def test_an_error_of_resume_names_it_and_not_train(given: dict[str, Any], message: str, tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text("run: r\nmodel: m\nmethod: grpo\ndata: {task: arithmetic}\n")
    with pytest.raises(RecipeError, match=message):
        sharpen.resume(tmp_path, **given, quiet=True)
