"""A run whose data, code, models or settings have changed: refused by name, or continued and recorded."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

import sharpen
from one_thread import one_thread
from sharpen.cli.app import app
from sharpen.errors import ChangedError, CheckpointError, RecipeError
from sharpen.launch import resuming
from sharpen.launch.run import Run, resume, start
from sharpen.recipe.schema import Recipe
from sharpen.runs.folder import read_metrics
from tiny_runs import Raising, left_behind, tiny_recipe, tiny_start_model, untimed

__all__ = ["one_thread"]

ACCEPT = "to go on with this, which is then recorded: --accept-changes, in Python accept_changes=True"
REWARD = """
from wanted import digits

def counted(completion, answer, scale=1.0):
    return scale * sum(c in digits for c in completion) / 8 + (completion[:1] == answer)
"""
WANTED = 'digits = "0123456789"\n'
TURNS = """
from sharpen.types import End

def once(prompt, trajectory):
    return End.DONE
"""
METHOD = """
from sharpen.methods import GRPO

class Mine(GRPO):
    name = "mine"
    boost: float = 1.0

    def advantages(self, batch):
        return self.boost * super().advantages(batch)
"""


class PowerCut(KeyboardInterrupt):
    """Nothing catches it, not even where a logger raises it."""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_start_model(tmp_path_factory.mktemp("changes") / "model")


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Rows to train on and to measure on, and what scores them."""
    for name, text in {"reward.py": REWARD, "wanted.py": WANTED, "turns.py": TURNS, "method.py": METHOD}.items():
        (tmp_path / name).write_text(text)
    write_rows(tmp_path / "train.jsonl", 5)
    write_rows(tmp_path / "held_out.jsonl", 3)
    return tmp_path


def write_rows(file: Path, count: int, answer: str = "2", sign: str = "+") -> None:
    rows = [{"prompt": f"{n}{sign}1=", "answer": answer, "unread": n} for n in range(count)]
    file.write_text("".join(f"{json.dumps(row)}\n" for row in rows))


def recipe_of(home: Path, model: Path, /, **changes: Any) -> Recipe:
    """Four steps of four prompts, of five."""
    settings: dict[str, Any] = {
        "data": {"task": None, "train": f"{home}/train.jsonl", "held_out": f"{home}/held_out.jsonl"},
        "reward": {"name": f"{home}/reward.py:counted", "scale": 1.0},
        "training": {"steps": 4},
        "optimizer": {"schedule": "constant", "warmup_steps": 0},
        "checkpoint": {"every": 0, "keep": 9, "best": None},
        **changes,
    }
    return tiny_recipe(home / "run", model, changes.pop("named", "grpo"), **settings)


def stopped(recipe: Recipe, after: int = 2) -> Path:
    """A run with a checkpoint of step 2."""
    run = start(recipe, on_step=lambda step, metrics: step < after)
    assert not run.finished
    return run.path


def call(*arguments: object) -> tuple[int, list[str]]:
    """The exit code of a command, and the lines that it wrote to standard error."""
    result = CliRunner(env={"COLUMNS": "500"}).invoke(app, [str(a) for a in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stderr.splitlines()


def refused(run: Path, *options: str) -> list[str]:
    """What a resume that must not go on says of the changes; it leaves the run as it is."""
    before = {file: file.read_bytes() for file in run.rglob("*") if file.is_file()}
    code, said = call("run", "--resume", run, *options)
    assert code == 2
    assert {file: file.read_bytes() for file in run.rglob("*") if file.is_file()} == before
    head = said.index(f"{run}: not what this run was started with:")
    assert said[-1] == ACCEPT
    return [line.removeprefix("- ") for line in said[head + 1 : -1]]


def record(run: Path) -> list[tuple[int, list[str]]]:
    file = run / "changes.jsonl"
    lines = map(json.loads, file.read_text().splitlines()) if file.exists() else ()
    return [(line["step"], [change["what"] for change in line["changed"]]) for line in lines]


def edit(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    assert text.count(old) == 1
    file.write_text(text.replace(old, new))


CHANGES: dict[str, tuple[Callable[[Path], None], str, dict[str, Any]]] = {
    "answers": (
        lambda home: write_rows(home / "train.jsonl", 5, answer="3"),
        "the training data: {home}/train.jsonl has other values in column `answer`",
        {},
    ),
    "prompts": (
        lambda home: write_rows(home / "train.jsonl", 5, sign="-"),
        "the training data: {home}/train.jsonl has other values in column `prompt`",
        {},
    ),
    "rows": (
        lambda home: write_rows(home / "train.jsonl", 7),
        "the training data: {home}/train.jsonl has 7 rows, 5 before",
        {},
    ),
    "held-out rows": (
        lambda home: write_rows(home / "held_out.jsonl", 3, answer="3"),
        "`data.held_out`: {home}/held_out.jsonl has other values in column `answer`",
        {},
    ),
    "the reward's source": (
        lambda home: edit(home / "reward.py", "/ 8", "/ 4"),
        "`reward.name` has other source code ({home}/reward.py:counted: reward.py)",
        {},
    ),
    "what the reward imports": (
        lambda home: edit(home / "wanted.py", "0123", "123"),
        "`reward.name` has other source code ({home}/reward.py:counted: wanted.py)",
        {},
    ),
    "the reward's settings": (
        lambda home: edit(home / "run/recipe.yaml", "scale: 1.0", "scale: 2.0"),
        "`reward.scale` was 1.0 and is now 2.0",
        {},
    ),
    "another setting": (
        lambda home: edit(home / "run/recipe.yaml", "max_new_tokens: 8", "max_new_tokens: 7"),
        "`rollout.max_new_tokens` was 8 and is now 7",
        {},
    ),
    "a function of turns": (
        lambda home: edit(home / "turns.py", "    return", "    # as before\n    return"),
        "`rollout.turns` has other source code ({home}/turns.py:once: turns.py)",
        {"rollout": {"turns": "HOME/turns.py:once"}},
    ),
    "a method": (
        lambda home: edit(home / "method.py", "return self", "return 2 * self"),
        "`method.name` has other source code ({home}/method.py:Mine: method.py)",
        {"method": {"name": "HOME/method.py:Mine", "group_size": 4, "minibatches": 1}},
    ),
    "the seed": (
        lambda home: edit(home / "run/recipe.yaml", "seed: 7", "seed: 8"),
        "`seed` was 7 and is now 8",
        {},
    ),
    "the reference": (
        lambda home: edit(home / "run/recipe.yaml", "path: null", f"path: {home}/other"),
        "the reference model has other weights",
        {},
    ),
}


@pytest.mark.parametrize("kind", CHANGES)
def test_a_change_is_named_refused_accepted_and_recorded(kind: str, home: Path, model: Path) -> None:
    change, what, changes = CHANGES[kind]
    recipe = recipe_of(home, model, **json.loads(json.dumps(changes).replace("HOME", str(home))))
    run = stopped(recipe)
    shutil.copytree(tiny_start_model(home / "made"), home / "other")
    if kind == "the reference":
        weights = home / "other" / "model.safetensors"
        content = bytearray(weights.read_bytes())
        content[-1] ^= 1
        weights.write_bytes(content)
    change(home)
    found = [what.format(home=home)]
    if kind == "the reference":
        found.append(f'`method.kl.path` was null and is now "{home}/other"')
    assert refused(run) == found
    assert refused(run, "--dry-run") == found
    code, said = call("run", "--resume", run, "--accept-changes", "--dry-run")
    assert code == 0
    assert not (run / "changes.jsonl").exists()
    code, said = call("run", "--resume", run, "--accept-changes")
    assert code == 0
    assert [line for line in said if line.startswith("changed")] == [f"changed: {line}" for line in found]
    assert record(run) == [(2, found)]
    # From its own checkpoints the run is unchanged.
    shutil.copytree(run / "checkpoints/step_000004", home / "last")
    edit(run / "recipe.yaml", "  steps: 4", "  steps: 5")
    code, said = call("run", "--resume", run)
    assert code == 0
    assert [line for line in said if line.startswith("changed")] == ["changed: `training.steps` was 4 and is now 5"]
    assert record(run) == [(2, found), (4, ["`training.steps` was 4 and is now 5"])]


def test_all_changes_are_shown_together_and_columns_that_nothing_reads_are_free(home: Path, model: Path) -> None:
    run = stopped(recipe_of(home, model))
    edit(home / "train.jsonl", '"unread": 3', '"unread": 4')
    edit(home / "reward.py", "/ 8", "/ 4")
    write_rows(home / "held_out.jsonl", 2)
    edit(run / "recipe.yaml", "beta: 0.04", "beta: 0.05")
    edit(run / "recipe.yaml", "learning_rate: 0.003", "learning_rate: 0.001")
    assert refused(run) == [
        f"`data.held_out`: {home}/held_out.jsonl has 2 rows, 3 before",
        f"`reward.name` has other source code ({home}/reward.py:counted: reward.py)",
        "`method.beta` was 0.04 and is now 0.05",
    ]


def test_ordinary_edits_are_said_and_recorded_without_being_asked_about(home: Path, model: Path) -> None:
    run = stopped(recipe_of(home, model))
    (home / "moved").mkdir()
    for name in ("train.jsonl", "reward.py", "wanted.py"):
        (home / name).rename(home / "moved" / name)
    edit(run / "recipe.yaml", f"{home}/train.jsonl", f"{home}/moved/train.jsonl")
    edit(run / "recipe.yaml", f"{home}/reward.py", f"{home}/moved/reward.py")
    edit(run / "recipe.yaml", "learning_rate: 0.003", "learning_rate: 0.001")
    edit(run / "recipe.yaml", "keep: 9", "keep: 8")
    code, said = call("run", "--resume", run)
    assert code == 0
    found = [
        f'`data.train` was "{home}/train.jsonl" and is now "{home}/moved/train.jsonl"',
        f'`reward.name` was "{home}/reward.py:counted" and is now "{home}/moved/reward.py:counted"',
        "`optimizer.learning_rate` was 0.003 and is now 0.001",
    ]
    assert [line for line in said if line.startswith("changed")] == [f"changed: {what}" for what in found]
    assert record(run) == [(2, found)]
    assert [row["learning_rate"] for row in read_metrics(run)[1:]] == [0.003, 0.003, 0.001, 0.001]


def test_another_version_is_said_and_never_refused(home: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = stopped(recipe_of(home, model))
    version = sharpen.__version__
    monkeypatch.setattr(sharpen, "__version__", "9.9")
    said: list[str] = []
    assert resume(run, say=said.append).finished
    assert f"changed: sharpen was {version} and is now 9.9; the last digits of numbers may differ" in said


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("  steps: 4", "  steps: 1", "`training.steps` is 1, and 2 steps are done"),
        ("  name: grpo", "  name: dr_grpo", '`method.name` was "grpo" and is now "dr_grpo": start another run'),
        ("reference: fixed", "reference: average", "`method` now has a reference that moves, and had none"),
    ],
)
def test_what_cannot_work_is_refused_even_if_it_is_accepted(
    old: str, new: str, problem: str, home: Path, model: Path
) -> None:
    changes = {"method": {"name": "grpo", "group_size": 4}} if "name" in old else {}
    run = stopped(recipe_of(home, model, **changes))
    edit(run / "recipe.yaml", old, new)
    if "name" in old:
        text = (run / "recipe.yaml").read_text()
        method = text[text.index("method:") : text.index("data:")]
        (run / "recipe.yaml").write_text(text.replace(method, "method:\n  name: dr_grpo\n  group_size: 4\n"))
    for options in ((), ("--accept-changes",), ("--accept-changes", "--dry-run")):
        code, said = call("run", "--resume", run, *options)
        assert code == 2
        assert said[-2] == f"{run}: cannot go on from step_000002:"
        assert said[-1].startswith(f"- {problem}")


def test_the_option_is_of_a_resume(home: Path, model: Path) -> None:
    (home / "recipe.yaml").write_text(recipe_of(home, model).to_yaml())
    code, said = call("run", home / "recipe.yaml", "--accept-changes")
    assert (code, said[-1]) == (2, "--accept-changes has no effect without --resume")


def test_an_unchanged_run_ends_with_the_same_bits_whether_changes_are_accepted_or_not(home: Path, model: Path) -> None:
    run = stopped(recipe_of(home, model, checkpoint={"every": 1, "best": "reward", "keep": 9}))
    shutil.copytree(run, home / "copy")
    for path, accept in ((run, False), (home / "copy", True)):
        assert resume(path, accept_changes=accept).finished
    assert left_behind(run, 4) == left_behind(home / "copy", 4)
    assert not (home / "copy" / "changes.jsonl").exists()


# What the steps after the change are


SWITCHED = """
from pathlib import Path

def counted(completion, answer, scale=1.0):
    wanted = Path(__file__).with_name("wanted.txt").read_text()
    return scale * sum(c in wanted for c in completion) / 8 + (completion[:1] == answer)
"""


def weights(run: Path, step: int = 4) -> bytes:
    return (run / "checkpoints" / f"step_{step:06d}" / "model.safetensors").read_bytes()


@pytest.mark.parametrize("lag", [0, 1])
def test_an_accepted_reward_scores_from_the_next_step_on(lag: int, home: Path, model: Path) -> None:
    """As in a run that never stops, whose reward begins to read another text after step 2."""
    changes: dict[str, Any] = {"evaluation": {"every": 0}, "rollout": {"lag": lag}}
    if lag:
        changes["method"] = {"tis_cap": 2.0, "updates_per_rollout": 1, "minibatches": 1, "beta": 0.0}
    changes["data"] = {"task": None, "train": f"{home}/train.jsonl"}
    run = stopped(recipe_of(home, model, **changes))
    edit(home / "reward.py", "from wanted import digits", 'digits = "+-="')
    assert refused(run)
    assert resume(run, accept_changes=True).finished
    samples = Run.open(run).samples()
    for row in samples.itertuples():
        wanted = "0123456789" if row.step <= 2 else "+-="
        scored = sum(c in wanted for c in row.completion) / 8 + (row.completion[:1] == "2")
        assert row.reward == scored
    # A batch that was drawn ahead has the old scores, so it is drawn anew, by the policy of step 2.
    assert set(samples[samples.step == 3].policy_version) == {2}
    if lag:
        return
    (home / "reward.py").write_text(SWITCHED)
    (home / "wanted.txt").write_text("0123456789")

    def switch(step: int, metrics: Mapping[str, float]) -> None:
        if step == 2:
            (home / "wanted.txt").write_text("+-=")

    whole = start(recipe_of(home, model, **changes).model_copy(update={"run": home / "whole"}), on_step=switch)
    assert weights(run) == weights(whole.path)
    assert untimed(read_metrics(run)) == untimed(read_metrics(whole.path))


def test_accepted_answers_of_the_same_prompts_take_effect_where_the_run_is(home: Path, model: Path) -> None:
    """The order of the rows goes on, and so do the draws."""
    changes: dict[str, Any] = {
        "evaluation": {"every": 0},
        "data": {"task": None, "train": f"{home}/train.jsonl"},
    }
    run = stopped(recipe_of(home, model, **changes))
    write_rows(home / "train.jsonl", 5, answer="-")
    assert resume(run, accept_changes=True).finished
    edit(home / "reward.py", "completion[:1] == answer", 'completion[:1] == Path(__file__).with_name("a").read_text()')
    edit(home / "reward.py", "from wanted", "from pathlib import Path\nfrom wanted")
    (home / "a").write_text("2")

    def switch(step: int, metrics: Mapping[str, float]) -> None:
        if step == 2:
            (home / "a").write_text("-")

    whole = start(recipe_of(home, model, **changes).model_copy(update={"run": home / "whole"}), on_step=switch)
    assert weights(run) == weights(whole.path)
    assert untimed(read_metrics(run)) == untimed(read_metrics(whole.path))


def test_accepted_rows_of_another_number_begin_the_next_epoch(home: Path, model: Path) -> None:
    """Eight draws of five rows end within epoch 1, so that the new rows are drawn in the order of epoch 2."""
    run = stopped(recipe_of(home, model))
    before = {name: (run / name).read_bytes() for name in ("metrics.jsonl",)} | {"weights": weights(run, 2)}
    write_rows(home / "train.jsonl", 9)
    assert resume(run, accept_changes=True).finished
    assert (run / "metrics.jsonl").read_bytes().startswith(before["metrics.jsonl"])
    assert weights(run, 2) == before["weights"]
    order = np.random.Generator(np.random.Philox(np.random.SeedSequence([7, 2]))).permutation(9).tolist()
    samples = Run.open(run).samples()
    taken = [row.prompt_id for row in samples[samples.step > 2].itertuples()][::4]
    assert taken == [f"train.jsonl:{number + 1}" for number in order[:8]]


def test_measures_of_other_rows_do_not_compete_for_the_best(home: Path, model: Path) -> None:
    """Answers that all are right make every checkpoint the best of a measure that was low before, and the reverse."""
    write_rows(home / "held_out.jsonl", 3)
    run = stopped(recipe_of(home, model, checkpoint={"best": "reward", "keep": 9}))
    edit(home / "reward.py", "return scale", "return -5 + scale")
    said: list[str] = []
    assert resume(run, say=said.append, accept_changes=True).finished
    assert any(line.startswith("checkpoint.best: the measures so far cannot be compared") for line in said)
    best = json.loads((run / "checkpoints/step_000004/trainer/state.json").read_text())["best"]
    rows = read_metrics(run)
    assert rows[2]["held_out/reward"] > -1 > rows[4]["held_out/reward"]
    assert best == {"step": 4, "value": rows[4]["held_out/reward"]}


# What was accepted stays accepted, and is recorded once


def cut_off(after: int) -> Raising:
    def fall() -> None:
        raise PowerCut

    return Raising(lambda step: step == after, fall)


def test_a_kill_before_the_next_checkpoint_keeps_what_was_accepted(home: Path, model: Path) -> None:
    run = stopped(recipe_of(home, model))
    shutil.copytree(run, home / "copy")
    edit(home / "reward.py", "/ 8", "/ 4")
    what = f"`reward.name` has other source code ({home}/reward.py:counted: reward.py)"
    with pytest.raises(PowerCut):
        resume(run, loggers=[cut_off(3)], accept_changes=True)
    assert record(run) == [(2, [what])]
    assert [path.name for path in sorted((run / "checkpoints").glob("step_*"))] == ["step_000002"]
    said: list[str] = []
    with pytest.raises(PowerCut):
        resume(run, loggers=[cut_off(3)], say=said.append)
    assert f"changed before, and recorded: {what}" in said
    # Another change beside it is asked about alone.
    edit(run / "recipe.yaml", "beta: 0.04", "beta: 0.05")
    assert refused(run) == ["`method.beta` was 0.04 and is now 0.05"]
    edit(run / "recipe.yaml", "beta: 0.05", "beta: 0.04")
    assert resume(run).finished
    assert record(run) == [(2, [what])]
    assert resume(home / "copy", accept_changes=True).finished
    assert left_behind(run, 4) == left_behind(home / "copy", 4)


def test_a_change_that_is_taken_back_before_a_checkpoint_never_was(home: Path, model: Path) -> None:
    run = stopped(recipe_of(home, model))
    shutil.copytree(run, home / "copy")
    edit(home / "reward.py", "/ 8", "/ 4")
    with pytest.raises(PowerCut):
        resume(run, loggers=[cut_off(3)], accept_changes=True)
    edit(home / "reward.py", "/ 4", "/ 8")
    for path in (run, home / "copy"):
        assert resume(path).finished
    assert record(run) == []
    assert left_behind(run, 4) == left_behind(home / "copy", 4)


def test_a_record_that_cannot_be_read_is_named(home: Path, model: Path) -> None:
    run = stopped(recipe_of(home, model))
    (run / "changes.jsonl").write_text('{"step": 2}\n')
    with pytest.raises(CheckpointError, match=rf"{run}/changes\.jsonl:1: cannot be read: KeyError\('changed'\)"):
        resume(run)


def test_a_checkpoint_of_an_earlier_version_is_not_compared_in_what_it_lacks_and_that_is_said(
    home: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = stopped(recipe_of(home, model))
    load = resuming.load_state

    def older(checkpoint: Path) -> dict[str, Any]:
        state = load(checkpoint)
        for name in ("recipe", "code", "scorers", "versions"):
            del state["fingerprint"][name]
        return state

    monkeypatch.setattr(resuming, "load_state", older)
    edit(home / "reward.py", "/ 8", "/ 4")
    write_rows(home / "held_out.jsonl", 2)
    said: list[str] = []
    with pytest.raises(ChangedError) as error:
        resume(run, say=said.append)
    assert str(error.value).splitlines()[1:-1] == [f"- `data.held_out`: {home}/held_out.jsonl has 2 rows, 3 before"]
    note = "was written by a version that did not record its settings, its source code, the models of its rewards"
    assert said.count(f"step_000002 {note}: not compared") == 1


# In Python, with a reward model, and with several seeds


def test_a_function_that_was_given_in_python_is_known_by_its_source(home: Path, model: Path) -> None:
    def first(completion: str, answer: str) -> float:
        return len(completion) / 8

    def second(completion: str, answer: str) -> float:
        return len(completion) / 9

    arguments: dict[str, Any] = {
        "rollout": {"max_new_tokens": 4},
        "training": {"steps": 2, "prompts_per_step": 2},
        "quiet": True,
    }
    path = home / "mine"
    sharpen.train(
        model, "grpo", home / "train.jsonl", reward=first, run=path, on_step=lambda step, metrics: False, **arguments
    )
    with pytest.raises(ChangedError, match=r"- `reward` has other source code \(given in Python\)"):
        sharpen.resume(path, reward=second, quiet=True)
    assert sharpen.resume(path, reward=second, accept_changes=True, quiet=True).finished
    assert record(path) == [(1, ["`reward` has other source code (given in Python)"])]


def test_a_reward_model_that_was_trained_on_is_another(home: Path, model: Path) -> None:
    """The folder of its run stands for its latest checkpoint."""
    judge = tiny_recipe(
        home / "judge",
        model,
        "reward_model",
        training={"steps": 2},
        evaluation={"every": 0},
        checkpoint={"every": 1, "keep": 9, "best": None},
    )
    checkpoints = start(judge).path / "checkpoints"
    later = checkpoints / "step_000002"
    shutil.move(later, home / "later")
    reward = {"name": "reward_model", "path": str(home / "judge")}
    run = stopped(recipe_of(home, model, reward=reward, evaluation={"every": 0}))
    shutil.move(home / "later", later)
    places = f"{later}, before {checkpoints / 'step_000001'}"
    assert refused(run) == [f"the model of reward `reward_model` has other weights ({places})"]
    assert resume(run, accept_changes=True).finished


def test_each_of_several_seeds_is_asked_about_and_records_it(home: Path, model: Path) -> None:
    runs = home / "runs"
    recipe = recipe_of(home, model, training={"steps": 2}, checkpoint={"every": 1, "keep": 9, "best": None})
    (home / "recipe.yaml").write_text(recipe.to_yaml())
    assert call("run", home / "recipe.yaml", f"run={runs}", "--seeds", 2)[0] == 0
    seeds = [runs / "seed_7", runs / "seed_8"]
    for seed in seeds:
        shutil.rmtree(seed / "checkpoints/step_000002")
    edit(home / "reward.py", "/ 8", "/ 4")
    code, said = call("run", "--resume", runs)
    assert code == 2
    assert f"seed 8 failed with exit code 2: {ACCEPT}" in said
    assert call("run", "--resume", runs, "--accept-changes")[0] == 0
    what = f"`reward.name` has other source code ({home}/reward.py:counted: reward.py)"
    assert [record(seed) for seed in seeds] == [[(1, [what])]] * 2


def test_settings_given_again_in_python_must_be_those_of_the_recipe(home: Path, model: Path) -> None:
    run = stopped(recipe_of(home, model))
    with pytest.raises(RecipeError, match=r"`reward\.scale`: started with 1\.0, now 2\.0"):
        sharpen.resume(run, reward={"name": f"{home}/reward.py:counted", "scale": 2.0}, accept_changes=True, quiet=True)
