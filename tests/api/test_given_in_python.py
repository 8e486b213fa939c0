"""A run with what only this process has: a class within a function, a lambda, rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import sharpen
from api_runs import ROWS, SMALL, digit_model, untimed
from sharpen.cli.app import app
from sharpen.errors import RecipeError
from sharpen.launch.run import how_to_continue


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return digit_model(tmp_path_factory.mktemp("given") / "model")


def local_method() -> type[sharpen.GRPO]:
    class Local(sharpen.GRPO):
        name = "local"
        scale: float = 1.0

        def advantages(self, batch: Any) -> Any:
            return self.scale * super().advantages(batch)

    return Local


def test_a_run_of_local_parts_works_within_the_process(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    method = local_method()(group_size=4, scale=0.5)
    objects: dict[str, Any] = {"reward": lambda completion, answer: float(completion[:1] == answer[:1])}
    settings: dict[str, Any] = {**SMALL, "evaluation": {"every": 1}}
    run = sharpen.train(model, method, ROWS, held_out=ROWS, run=tmp_path / "run", **objects, **settings)
    said = capsys.readouterr().err
    assert (
        "`method`, `data.train`, `data.held_out`, `reward`: given in Python, under no name that a recipe could save"
        in " ".join(said.split())
    )

    assert run.recipe.method == method
    assert "method: local" in repr(run)
    assert run.plot().axes
    assert run.evaluate().measures["reward"].mean == run.metrics["held_out/reward"].iloc[-1]
    assert isinstance(run.chat(sharpen.Sampling(2, temperature=0.0)).reply("1+1=").text, str)

    given = {"method": method, "train_dataset": ROWS, "held_out": ROWS, **objects}
    assert untimed(sharpen.resume(run, quiet=True, **given)) == untimed(run)
    with pytest.raises(RecipeError, match=r"was given `method`, `reward` in Python|method of this recipe was given in"):
        sharpen.resume(run, quiet=True, train_dataset=ROWS, held_out=ROWS)

    opened = sharpen.Run.open(run.path)
    assert opened == run
    assert "<given in Python>" in repr(opened)
    with pytest.raises(RecipeError, match="the method of this recipe was given in Python"):
        _ = opened.recipe
    # What needs no method asks for none.
    with sharpen.load(run.path) as loaded:
        assert len(loaded.generate("1+1=", n=2)) == 2
    chatted = CliRunner().invoke(app, ["chat", str(run.path), "--temperature", "0"], input="1+1=\n")
    assert chatted.exit_code == 0, chatted.output
    refused = CliRunner().invoke(app, ["run", "--resume", str(run.path)])
    assert refused.exit_code == 2
    assert "the method of this recipe was given in Python" in " ".join(refused.stderr.split())


def test_a_class_of_a_module_is_saved_by_its_name(model: Path, tmp_path: Path) -> None:
    """The command line resumes it: everything that it needs has a name."""
    (tmp_path / "rows.jsonl").write_text('{"prompt": "1+1=", "answer": "2"}\n' * 4)
    (tmp_path / "mine.py").write_text(
        "import sharpen\n\n\nclass Half(sharpen.GRPO):\n    name = 'half'\n\n\n"
        "class Right(sharpen.Verifier):\n    name = 'right'\n    letters: int = 1\n\n"
        "    def __call__(self, completion, *, answer, **row):\n"
        "        return float(completion[: self.letters] == answer[: self.letters])\n"
    )
    from sharpen.registry import load_named

    half, right = (load_named(f"{tmp_path / 'mine.py'}:{name}", "part", RecipeError) for name in ("Half", "Right"))
    run = sharpen.train(
        model,
        half(group_size=4),
        tmp_path / "rows.jsonl",
        reward=right(letters=2),
        run=tmp_path / "run",
        quiet=True,
        **SMALL,
    )
    opened = sharpen.Run.open(run.path)
    assert opened.recipe.method == half(group_size=4)
    assert opened.recipe.reward == {"name": f"{tmp_path / 'mine.py'}:Right", "letters": 2}
    resumed = CliRunner().invoke(app, ["run", "--resume", str(run.path)])
    assert resumed.exit_code == 0, resumed.output


def test_a_run_that_no_command_can_continue_is_continued_in_python(model: Path, tmp_path: Path) -> None:
    given: dict[str, Any] = {"reward": lambda completion, answer: 1.0, "quiet": True, **SMALL}
    run = sharpen.train(model, "grpo", ROWS, run=tmp_path / "run", **given)
    continued = f"sharpen.resume({str(run.path)!r}, ...) in Python, with the same objects"
    assert how_to_continue(run.path).endswith(f"to continue: {continued}")
    with pytest.raises(RecipeError) as error:
        sharpen.train(model, "grpo", ROWS, run=run.path, **given)
    assert f"continue it (`{continued}`)" in str(error.value)
