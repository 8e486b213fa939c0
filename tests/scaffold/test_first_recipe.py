"""The recipe that is written for rows of each kind: what it says, that it is valid, and that it runs."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import yaml
from pyarrow import csv, parquet
from transformers import AutoTokenizer
from typer.testing import CliRunner

from sharpen.cli.app import app
from sharpen.errors import DataError, RecipeError, RewardError
from sharpen.launch.reward_check import check_recipe
from sharpen.launch.run import start
from sharpen.models.character_model import create_character_model
from sharpen.recipe.loading import load_recipe
from sharpen.runs.folder import read_metrics
from sharpen.scaffold.first_recipe import FirstRecipe, write_first_recipe
from sharpen.scaffold.machine import Machine
from sharpen.scaffold.model_facts import look_at_model
from sharpen.scaffold.sizes import learning_rate, needs_lora, room_for_completions

ALPHABET = "".join(map(chr, range(32, 127))) + "\n"
TEMPLATE = (
    "{% for m in messages %}{{ m.role[0] }}:{{ m.content }}{% if m.role == 'assistant' %}<eos>{% endif %}\n{% endfor %}"
    "{% if add_generation_prompt %}a:{% endif %}"
)
CPU = Machine(None, 16.0)
SUMS = [{"prompt": f"{a}+{b}=", "answer": a + b, "source": "book"} for a in range(4) for b in range(5)]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Models of some thousand weights with a token per character: without and with a chat template."""
    folder = tmp_path_factory.mktemp("models")
    sizes = {"alphabet": ALPHABET, "hidden": 16, "intermediate": 24, "layers": 1, "heads": 2, "context": 256}
    for name in ("text", "chat"):
        create_character_model(folder / name, **sizes)
    tokenizer = AutoTokenizer.from_pretrained(folder / "chat")
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(folder / "chat")
    return {name: str(folder / name) for name in ("text", "chat")}


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def put(name: str, rows: Sequence[Mapping[str, Any]]) -> str:
    Path(name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return name


def settings(written: FirstRecipe) -> dict[str, Any]:
    """What the file says, as any YAML parser reads it; it is also a valid recipe, unless something is missing."""
    if written.draft.missing is None:
        load_recipe(written.file)
    tree: dict[str, Any] = yaml.safe_load(written.file.read_text())
    return tree


def init(rows: Sequence[Mapping[str, Any]], model: str, name: str = "mine.jsonl") -> dict[str, Any]:
    return settings(write_first_recipe(put(name, rows), model=model, machine=CPU))


def test_prompts_with_numbers_for_a_text_model(models: dict[str, str]) -> None:
    put("test.jsonl", [{"prompt": "9+9=", "answer": 18}, {"prompt": "0+0=", "answer": 0}])
    written = write_first_recipe(put("train.jsonl", SUMS), model=models["text"], file=Path("a.yaml"), machine=CPU)
    tree = settings(written)
    assert tree["method"] == {"name": "grpo", "group_size": 8}
    assert tree["reward"] == {"name": "math", "answer_from": "last_number"}
    assert tree["data"] == {"train": "train.jsonl", "held_out": "test.jsonl"}
    assert tree["model"] == {"path": models["text"]}
    assert tree["rollout"]["max_new_tokens"] == 16
    # 20 rows, 8 a step, ten times over: 25 steps; a sixth of them between measurements.
    assert tree["training"] == {"steps": 25, "prompts_per_step": 8}
    assert tree["evaluation"] == {"every": 4, "prompts": 2, "n": 4, "k": [1, 4]}
    assert tree["checkpoint"]["best"] == "pass@1"
    assert tree["log"] == {"tokens_every": tree["training"]["steps"] // 5}
    assert tree["optimizer"] == {"learning_rate": 1e-4}
    text = written.file.read_text()
    assert text.splitlines()[0] == "# grpo on train.jsonl: prompts with answers."
    assert "#   source  not used\n" in text
    assert "#   sharpen reward check a.yaml " in text
    # "0+0=" is trained on too.
    assert "# unsure: 1 held-out rows have a prompt that is trained on too" in text


def test_prompts_with_formulas_for_a_chat_model(models: dict[str, str]) -> None:
    rows = [{"prompt": f"Halve {n}.", "solution": f"It is \\frac{{{n}}}2.\n\\boxed{{\\frac{{{n}}}2}}"} for n in "13579"]
    tree = init(rows, models["chat"])
    assert tree["reward"] == {"name": "math", "column": "solution"}
    assert "reward_check" not in tree
    assert tree["data"] == {"train": "mine.jsonl", "chat": True, "system": "Put the final answer in \\boxed{}."}
    # The solutions have 33 characters, 1.5 times that is 50, and the next multiple of 8 is 56.
    assert tree["rollout"]["max_new_tokens"] == 56
    assert "evaluation" not in tree


def test_prompts_that_ask_for_a_box_need_no_system_message(models: dict[str, str]) -> None:
    assert "system" not in init([{"prompt": "1+1? Use \\boxed{}.", "answer": "2"}], models["chat"])["data"]


def test_classes_are_named_to_a_chat_model(models: dict[str, str]) -> None:
    rows = [{"prompt": f"Film {n}?", "label": ("good", "bad")[n % 2]} for n in range(6)]
    tree = init(rows, models["chat"])
    assert tree["reward"] == {"name": "exact_answer", "column": "label"}
    assert tree["data"]["system"] == "Reply with one of these only: bad, good."
    assert init(rows, models["text"], "again.jsonl")["data"] == {"train": "again.jsonl"}


def test_short_answers_have_room_for_twice_their_length(models: dict[str, str]) -> None:
    tree = init([{"prompt": "Who?", "answer": "Ada Lovelace Byron"}, {"prompt": "I?", "answer": "No"}], models["text"])
    assert tree["reward"] == "exact_answer"
    # 18 characters, doubled, up to a multiple of 8.
    assert tree["rollout"]["max_new_tokens"] == 40


def test_words(models: dict[str, str]) -> None:
    tree = init([{"prompt": "Write.", "words": ["moon", "sea"]}], models["chat"])
    assert tree["reward"] == {"name": "contains", "column": "words"}
    assert tree["data"] == {"train": "mine.jsonl", "chat": True}
    assert "reward_check" not in tree


def test_the_reward_for_numbers_passes_its_check(models: dict[str, str]) -> None:
    """The first command that is recommended finds nothing."""
    rows = [{"prompt": f"What is {a} plus {b}?", "answer": a + b} for a in (10, 40, 70) for b in (1, 3, 8)]
    written = write_first_recipe(put("mine.jsonl", rows), model=models["chat"], machine=CPU)
    (report,) = check_recipe(load_recipe(written.file))
    assert report.ok, report.findings
    assert (report.references.full, report.references.tried) == (9, 9)


def test_demonstrations(models: dict[str, str]) -> None:
    rows = [{"messages": [{"role": "user", "content": q}, {"role": "assistant", "content": "yes"}]} for q in "abcdef"]
    tree = init(rows, models["chat"])
    assert tree["method"] == {"name": "sft"}
    assert tree["data"] == {"train": "mine.jsonl"}
    assert tree["optimizer"] == {"learning_rate": 5e-4, "schedule": "cosine"}
    assert tree["training"] == {"steps": 10, "prompts_per_step": 6}
    assert not {"reward", "rollout", "evaluation"} & set(tree)


def test_demonstrations_with_answers_are_a_doubt(models: dict[str, str]) -> None:
    written = write_first_recipe(
        put("mine.jsonl", [{"prompt": "1+1=", "completion": "1+1=2", "answer": 2}]), model=models["text"], machine=CPU
    )
    assert settings(written)["method"]["name"] == "grpo"
    assert "# unsure: the rows have a `completion` too: `method: sft`" in written.file.read_text()


def test_preferences(models: dict[str, str]) -> None:
    tree = init([{"prompt": q, "chosen": "yes", "rejected": "no"} for q in "abc"], models["chat"])
    assert tree["method"] == {"name": "dpo", "beta": 0.1}
    assert tree["data"] == {"train": "mine.jsonl", "chat": True}
    assert "rollout" not in tree


def test_marked_steps(models: dict[str, str]) -> None:
    tree = init([{"prompt": "a", "steps": ["one", "two"], "labels": [1, 0]}], models["text"])
    assert tree["method"] == {"name": "process_reward_model"}
    assert tree["data"]["step_separator"] == "\n"


def test_programs(models: dict[str, str]) -> None:
    tests = {"inputs": [[1, 2]], "outputs": [3], "fn_name": "add"}
    rows = [{"prompt": "Add.", "test_cases": json.dumps(tests), "solution": "def add(a, b):\n    return a + b"}]
    tree = init(rows, models["chat"])
    assert tree["reward"] == {"name": "code_tests", "column": "test_cases", "reference_column": "solution"}
    assert "fenced" in tree["data"]["system"]
    assert init(rows, models["text"], "again.jsonl")["reward"]["code_from"] == "whole"


def test_programs_whose_references_fail_are_refused(models: dict[str, str]) -> None:
    wrong = {"prompt": "Add.", "test_list": ["assert add(1, 2) == 3"], "code": "def add(a, b):\n    return a - b"}
    with pytest.raises(RewardError, match=r"no reference answer gets a full reward from code_asserts.*mine\.jsonl:1"):
        init([wrong, wrong], models["text"])
    assert not Path("mine.yaml").exists()
    right = {**wrong, "code": "def add(a, b):\n    return a + b"}
    written = write_first_recipe(put("mine.jsonl", [right, wrong]), model=models["text"], machine=CPU)
    text = " ".join(written.file.read_text().replace("# ", "").split())
    assert (
        "unsure: 1 of 2 reference answers that were tried do not get a full reward: the first is mine.jsonl:2" in text
    )


def test_a_task(models: dict[str, str]) -> None:
    written = write_first_recipe("arithmetic?terms=3", model=models["text"], machine=CPU)
    tree = settings(written)
    assert str(written.file) == "arithmetic.yaml"
    assert tree["data"] == {"task": "arithmetic?terms=3"}
    assert "reward" not in tree
    assert tree["evaluation"]["n"] == 4
    assert "demonstrations" in written.draft.unsure[0]


def test_prompts_alone_lack_a_reward(models: dict[str, str]) -> None:
    written = write_first_recipe(put("mine.jsonl", [{"prompt": "Sing."}] * 3), model=models["text"], machine=CPU)
    assert written.draft.missing is not None
    text = written.file.read_text()
    with pytest.raises(RecipeError, match="needs a reward"):
        load_recipe(written.file)
    # With what the comment says, it is whole.
    function = text.split("(docs/rewards.md):\n#\n")[1].split("\n#\n")[0]
    Path("rewards.py").write_text("\n".join(line.removeprefix("#     ") for line in function.splitlines()) + "\n")
    written.file.write_text(text.replace("# reward: rewards.py:reward", "reward: rewards.py:reward"))
    run = start(two_steps(written.file))
    assert [row["step"] for row in run.metric_rows()] == [1, 2]
    assert all(0 <= row["reward/mean"] <= 1 for row in run.metric_rows())


def two_steps(file: Path, **changes: str) -> Any:
    return load_recipe(file, ["training.steps=2", "training.prompts_per_step=4", "model.device=cpu"])


def test_the_recipe_for_demonstrations_trains(models: dict[str, str]) -> None:
    put("test.jsonl", [{"prompt": "5+5=", "completion": "10"}])
    rows = [{"prompt": row["prompt"], "completion": str(row["answer"])} for row in SUMS]
    written = write_first_recipe(put("train.jsonl", rows), model=models["text"], file=Path("sft.yaml"), machine=CPU)
    settings(written)
    metrics = start(load_recipe(written.file, ["training.steps=2", "evaluation.every=1"])).metric_rows()
    assert [row["step"] for row in metrics] == [0, 1, 2]
    # An untrained model finds each of some hundred characters about equally likely.
    assert metrics[0]["held_out/loss"] == pytest.approx(math.log(len(ALPHABET) + 3), abs=0.3)
    assert metrics[2]["held_out/loss"] < metrics[0]["held_out/loss"]


def test_the_recipe_for_answers_trains(models: dict[str, str]) -> None:
    put("test.jsonl", [{"prompt": "5+5=", "answer": 10}])
    written = write_first_recipe(put("train.jsonl", SUMS), model=models["chat"], file=Path("a.yaml"), machine=CPU)
    settings(written)
    run = start(load_recipe(written.file, ["training.steps=2", "evaluation.every=1", "rollout.max_new_tokens=8"]))
    rows = run.metric_rows()
    assert [row["step"] for row in rows] == [0, 1, 2]
    assert all("held_out/pass@1" in row for row in rows)
    assert rows[1]["loss"] == pytest.approx(0, abs=1e-6)


def test_the_recipe_for_preferences_trains(models: dict[str, str]) -> None:
    rows = [{"prompt": row["prompt"], "chosen": str(row["answer"]), "rejected": "none"} for row in SUMS]
    written = write_first_recipe(put("mine.jsonl", rows), model=models["chat"], machine=CPU)
    start(two_steps(written.file))
    metrics = read_metrics(Path("runs/mine"))
    # Both completions are as likely as in the reference, which is the same model: -log ½.
    assert metrics[0]["loss"] == pytest.approx(math.log(2), abs=1e-5)
    assert metrics[1]["loss"] < math.log(2)


def test_rows_too_long_for_the_context_are_left_out(models: dict[str, str]) -> None:
    rows = [{"prompt": "a" * length, "completion": "b"} for length in (5, 300, 7, 400)]
    written = write_first_recipe(put("mine.jsonl", rows), model=models["text"], machine=CPU)
    assert settings(written)["data"]["overlong"] == "drop"
    assert any(doubt.startswith("2 of 4 rows are too long") for doubt in written.draft.unsure)


@pytest.mark.parametrize("name", ["mine.json", "mine.csv", "mine.parquet"])
def test_other_kinds_of_file(name: str, models: dict[str, str]) -> None:
    table = pa.Table.from_pylist(SUMS)
    if name.endswith("json"):
        Path(name).write_text(json.dumps(SUMS))
    elif name.endswith("csv"):
        csv.write_csv(table, name)
    else:
        parquet.write_table(table, name)
    written = write_first_recipe(name, model=models["text"], machine=CPU)
    tree = settings(written)
    assert tree["reward"] == {"name": "math", "answer_from": "last_number"}
    assert tree["data"] == {"train": name}
    assert "2 of the rows" in written.file.read_text()


def test_a_model_that_nobody_chose_is_a_doubt(models: dict[str, str]) -> None:
    Path("models").mkdir()
    Path("models/SmolLM2-135M-Instruct").symlink_to(models["chat"])
    written = write_first_recipe(put("mine.jsonl", SUMS), machine=CPU)
    assert settings(written)["model"]["path"] == "models/SmolLM2-135M-Instruct"
    assert written.draft.unsure[0].startswith("no --model was given")


def test_held_out_rows_of_another_kind_are_not_used(models: dict[str, str]) -> None:
    put("test.jsonl", [{"text": "a"}])
    written = write_first_recipe(put("train.jsonl", SUMS), model=models["text"], file=Path("a.yaml"), machine=CPU)
    assert "held_out" not in settings(written)["data"]
    assert any(doubt.startswith("test.jsonl is not used to measure on: test.jsonl") for doubt in written.draft.unsure)


def test_the_shell_lines_hold_rows_out(models: dict[str, str]) -> None:
    written = write_first_recipe(put("mine.jsonl", SUMS), model=models["text"], machine=CPU)
    said = [line.strip(" #") for line in written.file.read_text().splitlines()]
    assert "head -n 2 mine.jsonl > mine_held_out.jsonl" in said
    assert "tail -n +3 mine.jsonl > mine_train.jsonl" in said
    lines = Path("mine.jsonl").read_text().splitlines(keepends=True)
    Path("mine_held_out.jsonl").write_text("".join(lines[:2]))
    Path("mine_train.jsonl").write_text("".join(lines[2:]))
    again = write_first_recipe("mine_train.jsonl", model=models["text"], file=Path("b.yaml"), machine=CPU)
    assert settings(again)["data"]["held_out"] == "mine_held_out.jsonl"


def test_nothing_is_overwritten(models: dict[str, str]) -> None:
    Path("mine.yaml").write_text("mine")
    Path("runs/mine").mkdir(parents=True)
    with pytest.raises(RecipeError, match=r"mine\.yaml: exists already"):
        init(SUMS, models["text"])
    assert Path("mine.yaml").read_text() == "mine"
    written = write_first_recipe("mine.jsonl", model=models["text"], file=Path("new/other.yaml"), machine=CPU)
    assert settings(written)["run"] == "runs/mine_2"


def test_a_model_that_is_not_here_is_a_doubt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    written = write_first_recipe(put("mine.jsonl", SUMS), model="someone/Small-0.5B-Instruct", machine=CPU)
    tree = settings(written)
    assert tree["model"]["path"] == "someone/Small-0.5B-Instruct"
    assert tree["data"]["chat"] is True
    assert tree["optimizer"]["learning_rate"] == 2e-6
    assert "not on this machine" in written.draft.unsure[0]


def test_what_a_loader_refuses_is_refused(models: dict[str, str]) -> None:
    """Rows are read by the loader that a run uses."""
    with pytest.raises(DataError, match=r"mine\.jsonl:2.*are the same, so none is preferred"):
        init([{"prompt": "a", "chosen": "b", "rejected": c} for c in "cb"], models["text"])
    with pytest.raises(DataError, match="no rows in it"):
        init([], models["text"], "empty.jsonl")
    assert not list(Path.cwd().glob("*.yaml"))


def test_facts_about_a_model(models: dict[str, str]) -> None:
    facts = look_at_model(models["chat"])
    # 99 tokens, twice 16 numbers each; a layer of 4·16² + 3·16·24 + 2·16; a final norm.
    tokens = len(dict.fromkeys(ALPHABET)) + 3
    assert facts.parameters == 2 * tokens * 16 + 4 * 16**2 + 3 * 16 * 24 + 2 * 16 + 16
    assert (facts.context, facts.chat, facts.at_hand) == (256, True, True)
    assert facts.tokens(["abc", ""]) == [3, 0]


def test_large_models_get_an_adapter() -> None:
    assert not needs_lora("sft", 100_000_000, CPU)
    # 16 bytes for each of 0.7 billion weights are 10.4 of 16 GiB; DPO's reference takes 2.6 more.
    assert needs_lora("sft", 700_000_000, CPU)
    assert not needs_lora("sft", 600_000_000, CPU)
    assert needs_lora("dpo", 600_000_000, CPU)
    assert learning_rate("sft", 700_000_000, lora=True) == 2e-4


@pytest.mark.parametrize(
    ("wanted", "prompts", "context", "expected"),
    [
        (64, [10, 20], 100, (64, 0)),
        (64, [10, 60], 100, (40, 0)),
        (64, [10, 80, 60], 100, (50, 2)),
        (64, [10, 2000], None, (64, 0)),
    ],
)
def test_completions_leave_room_for_prompts(
    wanted: int, prompts: list[int], context: int | None, expected: tuple[int, int]
) -> None:
    room = room_for_completions(wanted, prompts, context)
    assert (room.max_new_tokens, room.too_long) == expected


def test_the_command_prints_what_it_saw_and_what_comes_next(models: dict[str, str]) -> None:
    put("mine.jsonl", SUMS)
    result = CliRunner().invoke(app, ["init", "mine.jsonl", "--model", models["text"], "-o", "a.yaml"])
    assert result.exit_code == 0, result.output
    for line in (
        "mine.jsonl: 20 rows, prompts with answers",
        "  answer  the right answer (mathematics)",
        "  sharpen reward check a.yaml   tries right and wrong answers",
        "  sharpen run a.yaml --dry-run  loads everything and trains nothing",
    ):
        assert line in result.stdout.splitlines()
    assert "20 of 20 reference answers get a full reward" in result.stdout
    again = CliRunner().invoke(app, ["init", "mine.jsonl", "-o", "a.yaml"])
    assert (again.exit_code, again.stdout) == (2, "")
    assert "a.yaml: exists already and is not overwritten" in again.stderr
