"""``sharpen run --dry-run``, as a person reads it."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from sharpen.cli.app import app
from tiny_runs import tiny_start_model, tiny_tree


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dry_run")
    model = tiny_start_model(folder / "model")
    (folder / "grpo.yaml").write_text(json.dumps(tiny_tree(folder / "run", model, "grpo")))
    (folder / "sft.yaml").write_text(json.dumps(tiny_tree(folder / "run", model, "sft")))
    return folder


def call(*arguments: object) -> Result:
    result = CliRunner(env={"COLUMNS": "80"}).invoke(app, [str(a) for a in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def lines_of(result: Result) -> list[str]:
    """The lines, with runs of spaces as one."""
    assert result.exit_code == 0, result.output
    return [" ".join(line.split()) for line in result.stdout.splitlines()]


def test_it_says_what_a_run_would_do_and_writes_nothing(folder: Path) -> None:
    before = sorted(folder.rglob("*"))
    lines = lines_of(call("run", folder / "grpo.yaml", "training.steps=3", "--dry-run"))
    assert sorted(folder.rglob("*")) == before
    for line in (
        "training.steps 3",
        "method.beta 0.04",
        "a step 4 prompts × 4 completions: 16 completions",
        "the run 3 steps, 12 optimizer updates",
        "evaluations 3, on 6 held-out rows × 2 answers",
        "Memory expected at the peak, on cpu",
        "The first batch, as the model sees it",
        "Nothing was trained, nothing was written.",
    ):
        assert line in lines
    # A long path is folded, not cropped.
    assert f"metrics{folder}/run/metrics.jsonl" in "".join("".join(lines).split())


def test_trained_tokens_stand_in_brackets(folder: Path) -> None:
    """A demonstration of the task: the problem, and its solution with the token that ends it."""
    lines = lines_of(call("run", folder / "sft.yaml", "--dry-run"))
    start = lines.index("The first batch, as the model sees it; what is trained on is between ⟦ and ⟧")
    problem, completion = lines[start + 2], lines[start + 4]
    assert problem.endswith("=")
    assert (completion[0], completion[-6:]) == ("⟦", "<eos>⟧")


def test_a_bad_recipe_exits_with_2_and_the_error_of_a_real_start(folder: Path) -> None:
    bad = ("rollout.max_new_tokens=64",)
    dry, real = (call("run", folder / "grpo.yaml", *bad, *more) for more in (("--dry-run",), ()))
    assert dry.exit_code == real.exit_code == 2
    assert dry.stderr == real.stderr
    assert not (folder / "run").exists()


def test_a_run_can_be_asked_for_its_next_batch(folder: Path) -> None:
    run = folder / "stopped"
    assert (
        call("run", folder / "sft.yaml", f"run={run}", "training.steps=2", "optimizer.warmup_steps=0", "-q").exit_code
        == 0
    )
    assert f"{run} is finished: 2 steps are done" in lines_of(call("run", "--resume", run, "--dry-run"))
    recipe = run / "recipe.yaml"
    recipe.write_text(recipe.read_text().replace("steps: 2\n", "steps: 6\n", 1))
    lines = lines_of(call("run", "--resume", run, "--dry-run"))
    assert any(line.startswith("The next batch") for line in lines)


def test_it_describes_one_run_not_several_seeds(folder: Path) -> None:
    refused = call("run", folder / "sft.yaml", "--seeds", 2, "--dry-run")
    assert refused.exit_code == 2
    assert "--dry-run describes one run" in " ".join(refused.stderr.split())
