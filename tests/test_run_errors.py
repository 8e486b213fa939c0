"""Law 6: what cannot be used is named, before the first step where it can be known, with nothing written."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from transformers import AutoTokenizer

from sharpen.errors import DataError, ModelError, RecipeError, RewardError, SharpenError
from sharpen.in_memory import IN_MEMORY
from sharpen.launch.run import resume, start
from sharpen.methods import METHODS
from sharpen.recipe.loading import make_recipe
from tiny_models import tiny_folder
from tiny_runs import digits, given, merge, tiny_start_model

ROWS = [{"prompt": f"{a}+{b}=", "answer": str(a + b)} for a in range(3) for b in range(3)]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_start_model(tmp_path_factory.mktemp("errors") / "model")


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return tmp_path / "run"


def rows_file(folder: Path, rows: list[Any]) -> Path:
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def tree_of(run: Path, model: Path) -> dict[str, Any]:
    return {
        "run": str(run),
        "model": {"path": str(model), "device": "cpu"},
        "method": {"name": "grpo", "group_size": 2},
        "data": {"train": IN_MEMORY},
        "reward": IN_MEMORY,
        "rollout": {"max_new_tokens": 4},
        "training": {"steps": 2, "prompts_per_step": 4},
    }


def begin(run: Path, model: Path, objects: Mapping[str, Any] | None = None, **changes: Any) -> Any:
    recipe = make_recipe(merge(tree_of(run, model), changes))
    return start(given(recipe, objects or {"data.train": ROWS, "reward": digits}))


def refused(
    error: type[SharpenError], run: Path, model: Path, objects: Mapping[str, Any] | None = None, **changes: Any
) -> str:
    """The message; nothing of a run may be there."""
    with pytest.raises(error) as raised:
        begin(run, model, objects, **changes)
    assert not (run / "recipe.yaml").exists()
    assert not (run / "metrics.jsonl").exists()
    return str(raised.value)


def from_file(path: Path) -> dict[str, Any]:
    return {"data": {"train": str(path)}}


def test_empty_data(run: Path, model: Path, tmp_path: Path) -> None:
    path = rows_file(tmp_path, [])
    assert refused(DataError, run, model, {"reward": digits}, **from_file(path)).startswith(f"{path}: no rows in it")
    assert "no rows" in refused(DataError, run, model, {"data.train": [], "reward": digits})


def test_a_tokenizer_larger_than_the_model(run: Path, tmp_path: Path) -> None:
    folder = tiny_start_model(tmp_path / "model")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    rows = len(tokenizer)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<think>"]})
    tokenizer.save_pretrained(folder)
    asked = [*ROWS, {"prompt": "1<think>", "answer": "1"}]
    message = refused(DataError, run, folder, {"data.train": asked, "reward": digits})
    assert f"row {len(asked)}: the token '<think>' has the id {rows}, and {folder} has embeddings for ids" in message
    assert f"below {rows} only, while its tokenizer has {rows + 1} tokens" in message
    # The folder is free for the corrected recipe, in which no row uses the token.
    begin(run, folder)


def test_a_file_that_is_not_there_or_not_json(run: Path, model: Path, tmp_path: Path) -> None:
    path = rows_file(tmp_path, ROWS)
    near = tmp_path / "row.jsonl"
    message = refused(DataError, run, model, {"reward": digits}, **from_file(near))
    assert message == f"{near}: no such file. Did you mean `rows.jsonl`?"
    path.write_text('{"prompt": "1+1="}\n{"prompt": \n')
    assert refused(DataError, run, model, {"reward": digits}, **from_file(path)).startswith(f"{path}:2: not JSON")


def test_a_column_that_the_reward_needs(run: Path, model: Path, tmp_path: Path) -> None:
    def right(completion: str, answer: str) -> float:
        return float(completion == answer)

    path = rows_file(tmp_path, [{"prompt": "1+1=", "answers": "2"}])
    message = refused(RewardError, run, model, {"reward": right}, **from_file(path))
    assert message.startswith(f"reward 'right' needs the column 'answer', which {path} does not have")
    assert "Did you mean `answers`?" in message
    # The held-out rows are read before the first step too.
    message = refused(
        RewardError,
        run,
        model,
        {"data.train": ROWS, "data.held_out": [{"prompt": "1"}], "reward": right},
        data={"held_out": IN_MEMORY},
        evaluation={"every": 1},
    )
    assert "needs the column 'answer'" in message


def test_a_row_without_a_value_that_the_reward_reads(run: Path, model: Path, tmp_path: Path) -> None:
    def right(completion: str, answer: str) -> float:
        return float(completion == answer)

    path = rows_file(tmp_path, [*ROWS, {"prompt": "1+1="}])
    assert refused(RewardError, run, model, {"reward": right}, **from_file(path)).startswith(
        f"{path}:10: no column 'answer', which other rows have"
    )
    path = rows_file(tmp_path, [{"prompt": "1+1=", "answer": None}, *ROWS])
    assert refused(RewardError, run, model, {"reward": "exact_answer"}, **from_file(path)).startswith(
        f"{path}:1: no value in column 'answer' (None)"
    )
    held_out_rows = [{"prompt": "1+1=", "answer": ["2"]}]
    objects = {"data.train": ROWS, "data.held_out": held_out_rows, "reward": "exact_answer"}
    held_out = {"data": {"train": IN_MEMORY, "held_out": IN_MEMORY}, "evaluation": {"every": 1}}
    assert "row 1: reward 'exact_answer': the column 'answer' of this row must be a text or a number" in refused(
        RewardError, run, model, objects, **held_out
    )
    sources = {"sums": {"train": str(path), "reward": "exact_answer"}, "others": {"task": "arithmetic"}}
    tree = tree_of(run, model) | {"data": {"sources": sources}, "reward": None}
    with pytest.raises(RewardError, match=rf"^source sums, {path}:1: no value in column 'answer'"):
        start(make_recipe(tree))


def test_a_column_that_the_method_needs(run: Path, model: Path, tmp_path: Path) -> None:
    path = rows_file(tmp_path, [{"sum": "1+1=", "answer": "2"}])
    assert refused(DataError, run, model, {"reward": digits}, **from_file(path)).startswith(
        f"{path}: no column `prompt`"
    )
    path = rows_file(tmp_path, ROWS)
    assert refused_sft(run, model, path).startswith(f"{path}: no column `completion`")


def refused_sft(run: Path, model: Path, path: Path) -> str:
    tree = {"run": run, "model": {"path": str(model), "device": "cpu"}, "method": "sft", "data": {"train": str(path)}}
    with pytest.raises(DataError) as raised:
        start(make_recipe(tree))
    assert not run.exists()
    return str(raised.value)


def test_a_prompt_that_does_not_fit(run: Path, model: Path, tmp_path: Path) -> None:
    rows = [*ROWS[:2], {"prompt": "1" * 29, "answer": "1"}, *ROWS[2:]]
    path = rows_file(tmp_path, rows)
    message = refused(DataError, run, model, {"reward": digits}, **from_file(path))
    assert message.startswith(f"{path}:3: does not fit into the context of 32 tokens")
    assert "its prompt has 29 tokens and max_new_tokens is 4" in message
    assert "overlong: drop" in message
    done = begin(run, model, {"reward": digits}, data={"train": str(path), "overlong": "drop"})
    assert done.finished
    demonstrations = rows_file(tmp_path, [{"prompt": "1+1=", "completion": "2" * 30}])
    assert refused_sft(tmp_path / "sft", model, demonstrations).startswith(f"{demonstrations}:1: does not fit")


def test_held_out_prompts_that_do_not_fit(run: Path, model: Path) -> None:
    objects = {"data.train": ROWS, "data.held_out": [ROWS[0], {"prompt": "1" * 30}], "reward": digits}
    message = refused(DataError, run, model, objects, data={"held_out": IN_MEMORY}, evaluation={"every": 1})
    assert "row 2: does not fit into the context of 32 tokens" in message


def kv_slots(slots: int) -> dict[str, Any]:
    """Of 256 bytes: 2 layers with keys and values of 2 heads of 8 numbers."""
    return {"rollout": {"max_new_tokens": 4, "engine": {"kv_gib": slots * 256 / 2**30}}}


def test_a_prompt_that_the_memory_for_keys_and_values_cannot_hold(run: Path, model: Path, tmp_path: Path) -> None:
    """32 slots, in blocks of 16, hold 17 tokens wherever a completion is interrupted: a prompt of 13 and 4 new ones."""
    longest, longer = ({"prompt": "1" * n, "answer": "1"} for n in (13, 14))
    path = rows_file(tmp_path, [*ROWS[:2], longest, longer])
    message = refused(RecipeError, run, model, {"reward": digits}, **from_file(path), **kv_slots(32))
    assert message.startswith(f"{path}:4: its prompt has 14 tokens and rollout.max_new_tokens is 4")
    assert "17 tokens" in message
    assert "rollout.engine.kv_gib" in message
    held_out = {"data": {"held_out": IN_MEMORY}, "evaluation": {"every": 1}}
    objects = {"data.train": [*ROWS[:4], longest], "data.held_out": [ROWS[0], longer], "reward": digits}
    message = refused(RecipeError, run, model, objects, **held_out, **kv_slots(32))
    assert "row 2: its prompt has 14 tokens" in message
    assert begin(
        run,
        model,
        {"data.train": objects["data.train"], "data.held_out": objects["data.train"], "reward": digits},
        **held_out,
        **kv_slots(32),
    )


def test_a_model_without_an_end(run: Path, tmp_path: Path) -> None:
    folder = tiny_folder(tmp_path / "model", "gpt2", eos_token_id=None)
    for name in ("generation_config.json", "tokenizer_config.json"):
        settings = json.loads((folder / name).read_text())
        (folder / name).write_text(json.dumps({k: v for k, v in settings.items() if not k.startswith("eos")}))
    message = refused(ModelError, run, folder)
    assert message.startswith(f"{folder}: no end-of-sequence token (eos_token_id) in generation_config.json")


def test_a_model_that_is_not_there(run: Path, tmp_path: Path) -> None:
    assert "not a model folder: there is no such folder" in refused(ModelError, run, tmp_path / "none")


@pytest.mark.parametrize(
    ("method", "missing"),
    [
        ("sft", "demonstrations"),
        ("dpo", "ranked completions"),
        ("reward_model", "ranked completions"),
        ("process_reward_model", "completions with marked steps"),
    ],
)
def test_a_task_without_what_the_method_learns_from(method: str, missing: str, run: Path, model: Path) -> None:
    tree = {
        "run": run,
        "model": {"path": str(model), "device": "cpu"},
        "method": method,
        "data": {"task": "sums"},
    }
    with pytest.raises(DataError, match=f"task sums has no {missing}, which method {method} learns from"):
        start(make_recipe(tree))
    assert not run.exists()


@pytest.mark.parametrize("method", [name for name, of in METHODS.items() if of().needs_reward])
def test_a_method_that_follows_a_reward_is_not_begun_without_one(method: str, run: Path, model: Path) -> None:
    message = refused(RecipeError, run, model, {"data.train": ROWS}, method=method, reward=None)
    assert message == f"recipe: method {method} needs a reward: give `reward`"


def test_a_reward_without_steps_for_process_supervision(run: Path, model: Path) -> None:
    with pytest.raises(RecipeError, match=r"method grpo .* needs a reward for every step .*`steps` or"):
        begin(run, model, method={"supervision": "process"})
    assert not run.exists()


def test_an_unknown_task_or_reward(run: Path, model: Path) -> None:
    tree = {"run": run, "model": str(model), "method": "grpo", "data": {"task": "arithmetics"}}
    with pytest.raises(RecipeError, match=r"unknown task `arithmetics`\. Did you mean `arithmetic`"):
        start(make_recipe(tree))
    message = refused(RewardError, run, model, {"data.train": ROWS}, reward="exact_answers")
    assert "unknown reward `exact_answers`. Did you mean `exact_answer`?" in message
    message = refused(RewardError, run, model, {"data.train": ROWS}, reward="nowhere.py:f")
    assert "there is no file" in message
    assert not run.exists()


def test_more_answers_asked_for_than_drawn(run: Path, model: Path) -> None:
    with pytest.raises(RecipeError, match="pass@8 needs n >= 8 completions per prompt, n is 4"):
        begin(run, model, evaluation={"every": 1, "n": 4, "k": [8]})
    assert not run.exists()


def test_a_run_that_exists_is_neither_overwritten_nor_mixed(run: Path, model: Path) -> None:
    assert begin(run, model).finished
    before = {file: file.read_bytes() for file in run.rglob("*") if file.is_file()}
    with pytest.raises(RecipeError, match="already holds a run") as raised:
        begin(run, model, seed=1)
    # Its rows are a list, which the command line has not.
    assert f"sharpen.resume({str(run)!r}, ...) in Python" in str(raised.value)
    assert {file: file.read_bytes() for file in run.rglob("*") if file.is_file()} == before


def test_a_folder_that_holds_no_run_cannot_be_resumed(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"not a run, it has no recipe\.yaml"):
        resume(tmp_path)


def test_rows_given_in_python_are_asked_for_again(run: Path, model: Path) -> None:
    begin(run, model, {"data.train": ROWS, "reward": lambda completion: len(completion)})
    for checkpoint in (run / "checkpoints").glob("step_*"):
        checkpoint.rename(run / checkpoint.name)
    for objects, what in (({}, "`data.train`, `reward`"), ({"data.train": ROWS}, "`reward`")):
        with pytest.raises(RecipeError, match=f"this run was given {what} in Python"):
            resume(run, objects)


def test_more_threads_than_processors_are_said(run: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    recipe = given(
        make_recipe({**tree_of(run, model), "training": {"steps": 1, "prompts_per_step": 2}}),
        {"data.train": ROWS, "reward": digits},
    )
    monkeypatch.setattr("torch.get_num_threads", lambda: 64)
    monkeypatch.setattr("sharpen.launch.build.available_processors", lambda: 2)
    assert start(recipe, say=said.append).finished
    assert "PyTorch uses 64 threads on 2 processors; OMP_NUM_THREADS=2 is faster" in said


# What only a running reward can tell


def test_a_reward_that_raises_too_often_stops_the_run_and_is_named(run: Path, model: Path) -> None:
    def fragile(completion: str, answer: str) -> float:
        return 1 / (len(answer) - 1)

    with pytest.raises(RewardError) as raised:
        begin(run, model, {"data.train": ROWS, "reward": fragile})
    message = str(raised.value)
    assert message.startswith("the reward failed for 8 of 8 completions, more than the rate of 0.1 allows. The first: ")
    assert "fragile raised ZeroDivisionError: division by zero (test_run_errors.py, line" in message
    assert "The first: prompt 'row:" in message
    assert not (run / "metrics.jsonl").exists()


def test_a_reward_that_raises_now_and_then_is_recorded_with_its_sample(run: Path, model: Path) -> None:
    calls = 0

    def fragile(completion: str) -> float:
        nonlocal calls
        calls += 1
        if calls in (3, 12):
            raise OSError("the disk is gone")
        return digits(completion)

    done = begin(run, model, {"data.train": ROWS, "reward": fragile}, rollout={"max_reward_failures": 0.125})
    assert [row["reward/failed"] for row in done.metric_rows()] == [0.125, 0.125]
    rows = [pq.read_table(run / "samples" / f"step_{step:06d}.parquet").to_pylist() for step in (1, 2)]
    failed = [[i for i, row in enumerate(part) if row["reward"] is None] for part in rows]
    assert failed == [[2], [3]]
    assert rows[0][2]["error"].startswith("fragile raised OSError: the disk is gone")
    assert rows[0][1]["error"] is None


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_reward_that_is_no_number_stops_the_run(run: Path, model: Path, value: float) -> None:
    def unlimited(completion: str) -> float:
        return value

    with pytest.raises(RewardError) as raised:
        begin(run, model, {"data.train": ROWS, "reward": unlimited})
    assert str(raised.value).startswith(f"reward 'unlimited' returned {value} for prompt ")
    assert "it must return a finite number" in str(raised.value)
    assert not (run / "metrics.jsonl").exists()


def test_a_reward_of_another_kind_stops_the_run(run: Path, model: Path) -> None:
    with pytest.raises(RewardError, match="reward 'words' returned a str for prompt "):
        begin(run, model, {"data.train": ROWS, "reward": _named("words", lambda completion: "good")})


def test_a_reward_that_applies_to_nothing_stops_the_run(run: Path, model: Path) -> None:
    with pytest.raises(RewardError, match="reward 'nothing' applied to none of the completions of a step"):
        begin(run, model, {"data.train": ROWS, "reward": _named("nothing", lambda completion: None)})


def _named(name: str, function: Any) -> Any:
    function.__name__ = name
    return function
