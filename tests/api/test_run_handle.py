"""A run as Python sees it: its metrics and samples as data frames, its picture, its checkpoints."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

import sharpen
from api_runs import ROWS, SMALL, digit_model, first_digit
from sharpen.errors import CheckpointError, RecipeError
from sharpen.report.plot import RunFigure
from sharpen.runs.checkpoint_state import load_state


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> sharpen.Run:
    folder = tmp_path_factory.mktemp("run")
    return sharpen.train(
        digit_model(folder / "model"),
        sharpen.GRPO(group_size=4),
        ROWS,
        reward=first_digit,
        held_out=ROWS[:3],
        run=folder / "run",
        evaluation={"every": 2},
        quiet=True,
        **{**SMALL, "checkpoint": {"every": 1, "best": "pass@1"}},
    )


def test_the_metrics_are_a_row_for_each_step(run: sharpen.Run) -> None:
    lines = [json.loads(line) for line in (run.path / "metrics.jsonl").read_text().splitlines()]
    frame = run.metrics
    assert frame.index.name == "step"
    assert list(frame.index) == [0, 1, 2]
    for line in lines:
        row = frame.loc[line["step"]].dropna()
        assert row.to_dict() == {name: value for name, value in line.items() if name != "step"}
    assert frame["reward/mean"].isna().tolist() == [True, False, False]


def test_the_samples_are_those_of_the_parquet_files(run: sharpen.Run) -> None:
    of_step = run.samples(step=1)
    assert of_step.to_dict("records") == pq.read_table(run.path / "samples" / "step_000001.parquet").to_pylist()
    assert len(of_step) == 8
    everything = run.samples()
    assert everything["step"].tolist() == [1] * 8 + [2] * 8
    assert everything["reward"].mean() == pytest.approx(run.metrics["reward/mean"].mean())
    with pytest.raises(RecipeError, match=r"no samples of step 7: there are those of steps 1, 2"):
        run.samples(step=7)


def test_the_picture_shows_the_rewards_of_the_run(run: sharpen.Run) -> None:
    figure = run.plot()
    assert isinstance(figure, RunFigure)
    assert figure._repr_png_().startswith(b"\x89PNG")
    [top, *_] = figure.subfigs
    drawn = {line.get_label(): line.get_ydata().tolist() for line in top.axes[0].lines}
    assert drawn["held-out pass@1, 95 % interval"] == run.metrics["held_out/pass@1"].dropna().tolist()
    assert run.metrics["reward/mean"].dropna().tolist() in [line.get_ydata().tolist() for line in top.axes[0].lines]


def test_a_run_is_opened_from_its_folder(run: sharpen.Run, tmp_path: Path) -> None:
    assert sharpen.Run.open(run.path) == sharpen.Run.open(str(run.path)) == run
    assert run.finished
    assert run.model == run.path / "checkpoints" / "step_000002"
    best = load_state(run.model)["best"]["step"]
    assert run.best == run.path / "checkpoints" / f"step_{best:06d}"
    assert run.recipe.training.steps == 2
    with pytest.raises(RecipeError, match="not a run"):
        sharpen.Run.open(tmp_path)


def test_a_run_before_its_first_step_can_be_watched(run: sharpen.Run, tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text((run.path / "recipe.yaml").read_text())
    young = sharpen.Run.open(tmp_path)
    assert not young.finished
    assert young.metrics.empty
    assert young.samples().empty
    with pytest.raises(RecipeError, match="no samples of step 1: there are none"):
        young.samples(1)
    with pytest.raises(CheckpointError, match="no checkpoint yet"):
        _ = young.model
    assert repr(young) == f"Run(run: {tmp_path}, method: grpo, step: 0 of 2, not finished)"


def test_a_notebook_shows_a_run_in_short(run: sharpen.Run) -> None:
    reward = run.metrics["reward/mean"].iloc[-1]
    assert f"step: 2 of 2, reward: {reward:.3f}" in repr(run)
    assert f"<tr><th>step</th><td>2 of 2</td></tr><tr><th>reward</th><td>{reward:.3f}</td></tr>" in run._repr_html_()


def test_a_conversation_with_a_run_uses_its_checkpoint(run: sharpen.Run) -> None:
    sampling = sharpen.Sampling(3, temperature=0)
    with sharpen.load(run.model) as model:
        assert run.chat(sampling).reply("1+1=").text == model.generate("1+1=", sampling)[0].text
