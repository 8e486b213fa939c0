"""The command line, as a person uses it: called, read, interrupted."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from safetensors.torch import load_file
from typer.testing import CliRunner, Result

from sharpen.cli.app import app
from sharpen.data.tasks.arithmetic import ALPHABET
from sharpen.models.character_model import create_character_model
from sharpen.rollout.engine import Request
from sharpen.rollout.local.engine import LocalEngine

TASK = "arithmetic?terms=2&digits=1&train_size=50&held_out_size=5&demonstration_size=50"
GRPO = "method={name: grpo, group_size: 2}"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny model, a recipe, and the run ``sft`` of two steps."""
    folder = tmp_path_factory.mktemp("cli")
    create_character_model(
        folder / "model", alphabet=ALPHABET, hidden=16, intermediate=32, layers=1, heads=2, context=64
    )
    recipe = {
        "run": str(folder / "sft"),
        "model": str(folder / "model"),
        "method": "sft",
        "data": {"task": TASK},
        "rollout": {"max_new_tokens": 8},
        "training": {"steps": 2, "prompts_per_step": 2},
        "evaluation": {"every": 1, "n": 2, "k": [1, 2], "prompts": 4},
        "checkpoint": {"every": 1},
    }
    (folder / "recipe.yaml").write_text(json.dumps(recipe))
    (folder / "reward.py").write_text(
        "def has_three(completion):\n    print('seen')\n    return float('3' in completion)\n"
    )
    (folder / "rows.jsonl").write_text('{"prompt": "1+2="}\n{"prompt": "2+1="}\n')
    result = call("run", folder / "recipe.yaml")
    assert result.exit_code == 0, result.output
    return folder


def call(*arguments: object, stdin: str | None = None) -> Result:
    result = CliRunner(env={"COLUMNS": "80"}).invoke(app, [str(a) for a in arguments], input=stdin)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def complaint(*arguments: object) -> str:
    """What a refused command says on standard error, its line breaks taken out."""
    result = call(*arguments)
    assert result.exit_code == 2
    assert result.stdout == ""
    return " ".join(result.stderr.split())


def metrics(run: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def test_help_names_every_command_and_fits_a_terminal() -> None:
    page = call("--help").stdout
    for command in ("run", "init", "eval", "chat", "get", "merge", "export", "demo", "rewards", "tasks"):
        assert f"│ {command} " in page
    assert "sharpen run --resume" in page
    assert max(map(len, page.splitlines())) <= 80


def test_the_command_line_answers_without_importing_torch() -> None:
    program = "import sys, sharpen.cli.app; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_a_run_says_where_everything_is(folder: Path) -> None:
    """A run's folder, given as a model, is its latest checkpoint."""
    shown = call("run", folder / "recipe.yaml", f"run={folder / 'grpo'}", f"model={folder / 'sft'}", GRPO)
    assert shown.exit_code == 0, shown.output
    for part in ("checkpoints/step_000002", "metrics.jsonl", "plot.png", "samples"):
        assert str(folder / "grpo" / part) in shown.stdout
        assert (folder / "grpo" / part).exists()
    assert "pass@1" in shown.stdout
    assert "Writing model shards" not in shown.stderr
    assert [row["step"] for row in metrics(folder / "grpo")] == [0, 1, 2]
    assert "reward/mean" in metrics(folder / "grpo")[-1]


def test_a_mistake_is_told_in_plain_words(folder: Path) -> None:
    assert complaint("run", folder / "nothing.yaml") == f"{folder / 'nothing.yaml'}: no such recipe"
    assert "Did you mean `training.steps`?" in complaint("run", folder / "recipe.yaml", "training.step=3")
    assert "already holds a run" in complaint("run", folder / "recipe.yaml")
    assert "give a recipe" in complaint("run")


def test_resume_takes_no_recipe_and_no_settings(folder: Path) -> None:
    for more in (["training.steps=9"], [folder / "recipe.yaml", "training.steps=9"]):
        said = complaint("run", "--resume", folder / "sft", *more)
        assert "keeps the recipe it was started with" in said
    assert "no recipe.yaml" in complaint("run", "--resume", folder / "nothing")


def test_resuming_a_finished_run_shows_it_and_changes_nothing(folder: Path) -> None:
    before = (folder / "sft" / "metrics.jsonl").read_bytes()
    result = call("run", "--resume", folder / "sft")
    assert result.exit_code == 0
    assert "is finished" in result.stderr
    assert (folder / "sft" / "metrics.jsonl").read_bytes() == before


def test_eval_prints_one_json_object(folder: Path) -> None:
    options = ["--task", TASK, "--n", 2, "--max-new-tokens", 4, "--prompts", 3, "--json"]
    said = json.loads(call("eval", folder / "model", *options).stdout)
    assert said["prompts"] == 3
    first = said["measures"]["pass@1"]
    assert 0 <= first["low"] <= first["mean"] <= first["high"] <= 1
    assert said == json.loads(call("eval", folder / "model", *options).stdout)


def test_eval_of_a_run_takes_its_latest_checkpoint_and_its_own_prompts(folder: Path) -> None:
    said = json.loads(call("eval", folder / "sft", "--json").stdout)
    assert said["model"] == str(folder / "sft" / "checkpoints" / "step_000002")
    last = metrics(folder / "sft")[-1]
    assert said["measures"]["length"]["mean"] == last["held_out/length"]
    assert said["measures"]["pass@2"]["mean"] == last["held_out/pass@2"]


def test_eval_of_a_file_with_a_reward_of_ones_own_keeps_standard_output_clean(folder: Path) -> None:
    arguments = ["--data", folder / "rows.jsonl", "--reward", f"{folder / 'reward.py'}:has_three", "--n", 4]
    result = call(
        "eval", folder / "model", *arguments, "--max-new-tokens", 6, "--json", "--out", folder / "samples.parquet"
    )
    assert json.loads(result.stdout)["measures"]["reward"]["mean"] >= 0
    assert "seen" in result.stderr
    samples = pq.read_table(folder / "samples.parquet").to_pylist()
    assert len(samples) == 8
    assert all(s["right"] == ("3" in s["completion"]) for s in samples)


def test_eval_takes_a_reward_with_settings(folder: Path) -> None:
    reward = "{name: regex, pattern: '.*', mode: search}"
    arguments = ["--data", folder / "rows.jsonl", "--reward", reward, "--n", 1, "--max-new-tokens", 2, "--json"]
    assert json.loads(call("eval", folder / "model", *arguments).stdout)["measures"]["pass@1"]["mean"] == 1.0


def test_eval_refuses_what_it_cannot_measure(folder: Path) -> None:
    model = folder / "model"
    assert "--task NAME" in complaint("eval", model)
    assert "not both" in complaint("eval", model, "--task", TASK, "--data", folder / "rows.jsonl")
    assert "--reward NAME" in complaint("eval", model, "--data", folder / "rows.jsonl")
    assert "pass@8 needs n >= 8" in complaint("eval", model, "--task", TASK, "--n", 2, "--k", "8")
    assert "whole numbers" in complaint("eval", model, "--task", TASK, "--k", "one")
    assert "Make max_new_tokens smaller" in complaint("eval", model, "--task", TASK)
    assert "Did you mean `exact_answer`" in complaint(
        "eval", model, "--data", folder / "rows.jsonl", "--reward", "exact_answers"
    )


def test_chat_without_a_template_completes_each_line(folder: Path) -> None:
    result = call(
        "chat", folder / "sft", "--seed", 1, "--max-new-tokens", 5, stdin="1+2=\n\n/reset\n3+4=\n/quit\n5+6=\n"
    )
    assert result.exit_code == 0, result.output
    assert "no chat template" in result.stderr
    assert len(result.stdout.splitlines()) == 2


def test_chat_with_a_template_remembers_until_it_is_reset(folder: Path, tmp_path: Path) -> None:
    chatty = create_character_model(
        tmp_path / "chatty", alphabet="abcdu:;\n", hidden=16, intermediate=32, layers=1, heads=2
    )
    settings = json.loads((chatty / "tokenizer_config.json").read_text())
    settings["chat_template"] = "{% for m in messages %}{{ m['role'][0] }}:{{ m['content'] }};{% endfor %}a:"
    (chatty / "tokenizer_config.json").write_text(json.dumps(settings))
    arguments = ["chat", chatty, "--max-new-tokens", 5]
    # 256 tokens of context hold one such question, but not two.
    question = "a" * 150 + "\n"
    result = call(*arguments, stdin=question * 2)
    assert "/reset starts a new conversation" in result.stderr
    assert "room for only 256" in result.stderr
    again = call(*arguments, stdin=f"{question}/reset\n" * 3)
    assert "room for only" not in again.stderr
    assert again.exit_code == result.exit_code == 0


def test_chat_with_a_run_has_its_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint = create_character_model(
        tmp_path / "run" / "checkpoints" / "merged", alphabet="abcd", hidden=16, intermediate=32, layers=1, heads=2
    )
    settings = json.loads((checkpoint / "tokenizer_config.json").read_text())
    settings["chat_template"] = (
        "{% if mark is not defined %}{{ raise_exception('no mark') }}{% endif %}"
        "{% for m in messages %}{{ m['content'] }}{% endfor %}{{ mark }}"
    )
    (checkpoint / "tokenizer_config.json").write_text(json.dumps(settings))
    recipe = {
        "run": "moved",
        "model": {"path": "gone", "compute_dtype": "bfloat16"},
        "method": "grpo",
        "data": {"task": TASK, "system": "a", "chat_template_kwargs": {"mark": "d"}},
        "rollout": {"max_new_tokens": 7, "stop": ["a", "b"]},
    }
    (tmp_path / "run" / "recipe.yaml").write_text(json.dumps(recipe))
    asked: list[tuple[str, int, tuple[str, ...], str]] = []

    def watched(self: LocalEngine, requests: Sequence[Request]) -> None:
        (request,) = requests
        text = self.policy.tokenizer.decode(request.token_ids)
        asked.append((text, request.max_new_tokens, request.sampling.stop, self.policy.compute_dtype))
        add(self, requests)

    add = LocalEngine.add
    monkeypatch.setattr(LocalEngine, "add", watched)
    assert call("chat", checkpoint, stdin="cc\n").exit_code == 0
    options = ("--dtype", "float32", "--max-new-tokens", 3, "--system", "b")
    assert call("chat", checkpoint, *options, stdin="cc\n").exit_code == 0
    assert call("chat", checkpoint, "--chat-template-kwargs", "{mark: c}", stdin="dd\n").exit_code == 0
    (tmp_path / "own.jinja").write_text("d{% for m in messages %}{{ m['content'] }}{% endfor %}{{ mark }}")
    assert call("chat", checkpoint, "--chat-template", tmp_path / "own.jinja", stdin="bb\n").exit_code == 0
    assert asked == [
        ("accd", 7, ("a", "b"), "bfloat16"),
        ("bccd", 3, ("a", "b"), "float32"),
        ("addc", 7, ("a", "b"), "bfloat16"),
        ("dabbd", 7, ("a", "b"), "bfloat16"),
    ]
    assert "--chat-template-kwargs must be a mapping" in complaint("chat", checkpoint, "--chat-template-kwargs", "mark")
    assert "--chat-template-kwargs: '{' is not YAML" in complaint("chat", checkpoint, "--chat-template-kwargs", "{")
    assert "--chat-template: gone.jinja: no such file" in complaint("chat", checkpoint, "--chat-template", "gone.jinja")
    assert "argument `mrk`" in complaint("chat", checkpoint, "--chat-template-kwargs", "{mrk: c}")


def test_rewards_and_tasks_are_listed_with_a_description() -> None:
    shown = call("rewards").stdout
    assert all(name in shown for name in ("exact_answer", "contains", "regex", "tags", "math"))
    shown = call("tasks").stdout
    assert "one-digit numbers" in shown
    assert "wrong_step_share=0.25" in shown
    assert "reasoning_gym:" in shown


def test_ctrl_c_ends_a_run_with_a_checkpoint_and_says_how_to_go_on(folder: Path) -> None:
    run = folder / "long"
    # The installed command is not taken from PATH: there may be none, or another.
    command = [sys.executable, "-c", "from sharpen.cli.app import main; main()"]
    settings = [f"run={run}", "training.steps=100000", "checkpoint.every=0", "evaluation.every=0"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [*command, "run", str(folder / "recipe.yaml"), *settings], stderr=subprocess.PIPE, text=True, env=environment
    )
    deadline = time.monotonic() + 60
    while not (run / "metrics.jsonl").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert f"sharpen run --resume {run}" in said
    assert "Traceback" not in said
    [checkpoint] = (run / "checkpoints").glob("step_*")
    assert checkpoint.name == f"step_{metrics(run)[-1]['step']:06d}"


def test_an_adapter_is_measured_and_merged(folder: Path, tmp_path: Path) -> None:
    run, merged = tmp_path / "run", tmp_path / "merged"
    changes = ("model.lora={rank: 2}", "optimizer.learning_rate=0.5", f"run={run}")
    assert call("run", folder / "recipe.yaml", *changes).exit_code == 0
    said = call("merge", run, merged)
    assert said.exit_code == 0
    assert said.stdout == f"{run}: merged into {merged}\n"
    assert f"model: {run / 'checkpoints' / 'step_000002'}" in said.stderr
    ask = ("--task", TASK, "--n", 4, "--k", "1,2", "--prompts", 5, "--json", "--max-new-tokens", 8)
    results = [json.loads(call("eval", model, *ask).stdout) for model in (run, merged, folder / "model")]
    adapted, whole, base = (result["measures"] for result in results)
    assert adapted == whole
    assert adapted != base
    assert "already a full model" in complaint("merge", folder / "model", tmp_path / "other")
    assert call("merge", run, tmp_path / "half", "--dtype", "bfloat16").exit_code == 0
    sizes = [
        sum(tensor.nbytes for tensor in load_file(path / "model.safetensors").values())
        for path in (merged, tmp_path / "half")
    ]
    assert sizes[0] == 2 * sizes[1]
    assert json.loads((tmp_path / "half" / "config.json").read_text())["dtype"] == "bfloat16"
