"""Data of so many rows that prompts and completions are made when they are drawn; here ten are many."""

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from one_thread import one_thread
from sharpen.data import large
from sharpen.data.items import DrawnItems
from sharpen.data.rows import read_rows
from sharpen.errors import DataError, DrawnRowError
from sharpen.launch.run import resume, start
from sharpen.launch.source_rows import SourceRows
from sharpen.models.policy import load_policy
from sharpen.recipe.schema import Recipe
from sharpen.rollout.collector import LocalCollector
from sharpen.rollout.engines import make_engine
from sharpen.runs.folder import read_metrics
from sharpen.types import Prompt, Reads
from tiny_runs import Raising, assert_left_the_same, left_behind, tiny_recipe, tiny_start_model, untimed

__all__ = ["one_thread"]

ROWS = 60
STEPS = 6


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_start_model(tmp_path_factory.mktemp("drawn") / "model")


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(large, "EAGER_ROWS", 10)


def of_prompts(i: int) -> dict[str, Any]:
    return {"prompt": f"{i}+{i % 7}=", "answer": str(i + i % 7)}


def of_demonstrations(i: int) -> dict[str, Any]:
    return {"prompt": f"{i}+1=", "completion": str(i + 1)}


def of_pairs(i: int) -> dict[str, Any]:
    return {"prompt": f"{i}+1=", "chosen": str(i + 1), "rejected": "0", "margin": 1 + i / 9}


def of_rankings(i: int) -> dict[str, Any]:
    return {"prompt": f"{i}+1=", "completions": [str(i + 1), "0", "1"], "ranks": [1, 2, 2]}


def of_steps(i: int) -> dict[str, Any]:
    return {"prompt": f"{i}+1=", "steps": [f"{i}+", f"{i + 1}"], "labels": [1, i % 2]}


def written(path: Path, row: Callable[[int], Mapping[str, Any]], rows: int = ROWS) -> Path:
    path.write_text("".join(json.dumps(row(i)) + "\n" for i in range(rows)))
    return path


def recipe(run: Path, model: Path, data: Path | Mapping[str, Any], name: str = "grpo", **changes: Any) -> Recipe:
    """A run of six steps, four prompts each."""
    sources = data if isinstance(data, Mapping) else {"train": str(data)}
    settings: dict[str, Any] = {
        "data": {"task": None, **sources},
        "evaluation": {"every": 0},
        "checkpoint": {"every": 1, "keep": 9, "best": None},
        **({"reward": {"name": "exact_answer", "column": "answer"}} if name in ("grpo", "rft") else {}),
    }
    for section, values in changes.items():
        settings[section] = {**settings.get(section, {}), **values} if isinstance(values, Mapping) else values
    return tiny_recipe(run, model, name, **settings)


# Items


@pytest.mark.parametrize(
    ("reads", "row"),
    [
        ("prompts", of_prompts),
        ("demonstrations", of_demonstrations),
        ("preferences", of_pairs),
        ("preferences", of_rankings),
        ("steps", of_steps),
    ],
)
def test_items_that_are_made_when_they_are_drawn_are_those_made_at_once(
    reads: Reads, row: Callable[[int], Mapping[str, Any]], model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy, said = load_policy(model), list[str]()
    data = recipe(tmp_path / "run", model, written(tmp_path / "rows.jsonl", row)).data

    def items() -> Any:
        source = SourceRows("sums", read_rows(tmp_path / "rows.jsonl"), data)
        if reads == "prompts":
            engine = make_engine(recipe(tmp_path / "run", model, tmp_path).rollout.engine, policy)
            return source.prompts(policy, engine, max_new_tokens=8, say=said.append)
        return source.groups(reads, policy, said.append)

    drawn = items()
    assert said == [
        f"{tmp_path}/rows.jsonl: 10 of its 60 rows are checked now, the others when they are drawn; `sharpen data "
        "check RECIPE` checks every row"
    ]
    monkeypatch.setattr(large, "EAGER_ROWS", ROWS)
    made = items()
    assert (len(drawn), len(drawn.at_hand), len(made.at_hand)) == (60, 10, 60)
    order = [7, 59, 0, 7, 31]
    assert drawn.take(order) == made.take(order)
    assert drawn.first(at_most=None) == list(made.at_hand)
    assert list(drawn.at_hand) == [made.at_hand[i] for i in (0, 1, 2, 3, 4, 5, 18, 32, 45, 59)]
    assert drawn.by_source() == {"sums": range(60)}


def test_the_longest_row_is_among_those_that_are_made_at_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(large, "EAGER_ROWS", 20)
    rows = [{"prompt": "1" * (40 if i == 41 else 1 + i % 3), "tests": "x" * 99 * (i == 23)} for i in range(60)]
    read = large.read_first(read_rows(rows), ("prompt", "messages"))
    assert "rows given as a list, row 42" in [read.where(i) for i in range(len(read))]
    assert "rows given as a list, row 24" not in [read.where(i) for i in range(len(read))]


# Runs


class PowerCut(KeyboardInterrupt):
    """Nothing catches it, not even where a logger raises it."""


def cut_off(after: int) -> Raising:
    def fall() -> None:
        raise PowerCut

    return Raising(lambda step: step == after, fall)


CASES: dict[str, tuple[str, Callable[[int], Mapping[str, Any]], dict[str, Any]]] = {
    "grpo": ("grpo", of_prompts, {}),
    "grpo with a lag": ("grpo", of_prompts, {"rollout": {"lag": 2}, "method": {"tis_cap": 2.0}}),
    "sft": ("sft", of_demonstrations, {}),
    "dpo": ("dpo", of_pairs, {}),
    "reward model": ("reward_model", of_pairs, {}),
    "process reward model": ("process_reward_model", of_steps, {}),
}


@pytest.mark.parametrize("case", CASES)
def test_a_run_that_was_cut_off_ends_as_if_it_had_not_been(case: str, model: Path, tmp_path: Path) -> None:
    name, row, changes = CASES[case]
    data = written(tmp_path / "rows.jsonl", row)
    extra = (
        {"demonstrations": str(written(tmp_path / "d.jsonl", of_demonstrations, 12))} if name == "reward_model" else {}
    )
    single = {"method": {"updates_per_rollout": 1, "minibatches": 1, "beta": 0.0, **changes.get("method", {})}}
    changes = {**changes, **(single if "lag" in case else {})}
    sources = {"train": str(data), **extra}
    start(recipe(tmp_path / "whole", model, sources, name, **changes))
    with pytest.raises(PowerCut):
        start(recipe(tmp_path / "cut", model, sources, name, **changes), loggers=[cut_off(1)])
    with pytest.raises(PowerCut):
        resume(tmp_path / "cut", loggers=[cut_off(4)])
    assert resume(tmp_path / "cut").finished
    assert_left_the_same(tmp_path / "cut", left_behind(tmp_path / "whole"))


def test_a_row_that_is_bad_when_it_is_drawn(model: Path, tmp_path: Path) -> None:
    """The step before has a checkpoint; with the row mended, the run ends as one whose row was never bad."""
    good = written(tmp_path / "good.jsonl", of_prompts)
    bad = tmp_path / "rows.jsonl"
    start(recipe(tmp_path / "good", model, good, checkpoint={"every": 0}))
    drawn = [int(row["prompt_id"].rpartition(":")[2]) for row in samples(tmp_path / "good", 4)]
    number = next(i for i in drawn if i - 1 not in (0, 1, 2, 3, 4, 5, 18, 32, 45, 59))
    lines = good.read_text().splitlines(keepends=True)
    for change, said in (
        ({"prompt": ""}, "a prompt without a token"),
        ({"prompt": [1]}, "column `prompt` must be a string, not list"),
        ({"prompt": "+" * 40}, "does not fit into the context of 32 tokens"),
        ({"answer": None}, "no value in column 'answer'"),
    ):
        spoilt = json.dumps({**of_prompts(number - 1), **change}) + "\n"
        bad.write_text("".join([*lines[: number - 1], spoilt, *lines[number:]]))
        run = tmp_path / "run"
        with pytest.raises(DrawnRowError) as raised:
            start(recipe(run, model, bad, checkpoint={"every": 0}))
        text = str(raised.value)
        assert text.startswith(f"step 4: {bad}:{number}: ")
        assert said in text
        assert text.endswith(
            "`sharpen data check RECIPE` finds all rows like it. Mend the row where it stands, and go on with the "
            f"option --accept-changes; the latest checkpoint is {run}/checkpoints/step_000003; to continue: sharpen "
            f"run --resume {run}"
        )
        assert len(read_metrics(run)) == 3
        shutil.copy(good, bad)
        assert resume(run, accept_changes=True).finished
        assert untimed(read_metrics(run)) == untimed(read_metrics(tmp_path / "good"))
        shutil.rmtree(run)


def samples(run: Path, step: int) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = pq.read_table(run / "samples" / f"step_{step:06d}.parquet").to_pylist()
    return rows


# Too long


def long_thirds(i: int) -> dict[str, Any]:
    return {**of_prompts(i), "prompt": "+" * 30 if i % 3 == 2 else f"{i}+1="}


def test_rows_that_are_too_long_are_left_out_as_they_are_drawn(model: Path, tmp_path: Path) -> None:
    """The next takes the place: what is used is the order without them, and the metrics count them."""
    data = written(tmp_path / "rows.jsonl", long_thirds)
    run = tmp_path / "run"
    start(recipe(run, model, {"train": str(data), "overlong": "drop"}))
    state = json.loads((run / "checkpoints" / "step_000006" / "trainer" / "state.json").read_text())
    cursor = state["collector"]["cursor"]
    left_out = [row.get("data/left_out", 0) for row in read_metrics(run)]
    assert cursor["position"] == 6 * 4 + sum(left_out)
    assert (cursor["left_out"], sum(left_out) > 3) == (sum(left_out), True)
    cut = tmp_path / "cut"
    with pytest.raises(PowerCut):
        start(recipe(cut, model, {"train": str(data), "overlong": "drop"}), loggers=[cut_off(2)])
    with pytest.raises(PowerCut):
        resume(cut, loggers=[cut_off(5)])
    assert resume(cut).finished
    assert_left_the_same(cut, left_behind(run))


def test_a_source_keeps_its_share_though_rows_of_it_are_left_out(model: Path, tmp_path: Path) -> None:
    sources = {
        "long": {"train": str(written(tmp_path / "long.jsonl", long_thirds)), "share": 1},
        "short": {"train": str(written(tmp_path / "short.jsonl", of_prompts)), "share": 3},
    }
    data = {"sources": sources, "overlong": "drop"}
    run, cut = tmp_path / "run", tmp_path / "cut"
    start(recipe(run, model, data))
    rows = read_metrics(run)
    assert [(row["source/long/prompts"], row["source/short/prompts"]) for row in rows] == [(1, 3)] * STEPS
    assert sum(row.get("data/left_out", 0) for row in rows) > 0
    with pytest.raises(PowerCut):
        start(recipe(cut, model, data), loggers=[cut_off(3)])
    assert resume(cut).finished
    assert_left_the_same(cut, left_behind(run))


def test_where_nothing_fits_the_run_does_not_begin(model: Path, tmp_path: Path) -> None:
    data = written(tmp_path / "rows.jsonl", lambda i: {**of_prompts(i), "prompt": "+" * 30})
    with pytest.raises(DataError, match=r"none of the 10 rows fits into 32 tokens"):
        start(recipe(tmp_path / "run", model, {"train": str(data), "overlong": "drop"}))


def test_one_row_that_fits_is_found(model: Path, tmp_path: Path) -> None:
    """It is drawn once an epoch."""
    data = written(tmp_path / "rows.jsonl", lambda i: {**of_prompts(i), "prompt": "+" * 30 if i else "1="})
    run = tmp_path / "run"
    short = {"training": {"steps": 2, "prompts_per_step": 2}}
    start(recipe(run, model, {"train": str(data), "overlong": "drop"}, **short))
    assert {row["prompt_id"] for step in (1, 2) for row in samples(run, step)} == {"rows.jsonl:1"}
    assert 3 * (ROWS - 1) <= sum(row["data/left_out"] for row in read_metrics(run)) < 4 * ROWS


def test_drawing_ends_where_nothing_fits() -> None:
    rows = read_rows([of_prompts(i) for i in range(ROWS)])
    prompts: DrawnItems[Prompt] = DrawnItems(rows, lambda part: [None] * len(part), ())
    with pytest.raises(DataError, match="none of the 60 rows fits into the context"):
        LocalCollector(prompts=prompts, seed=0).next_prompts(2)


def test_rft_answers_the_first_prompts_that_fit(model: Path, tmp_path: Path) -> None:
    data = written(tmp_path / "rows.jsonl", long_thirds)
    run = tmp_path / "run"
    settings = {"method": {"prompts": 8, "group_size": 2, "at_most": None, "threshold": 0.0}}
    start(recipe(run, model, {"train": str(data), "overlong": "drop"}, "rft", **settings))
    asked = list(dict.fromkeys(row["prompt_id"] for row in samples(run, 0)))
    assert asked == [f"rows.jsonl:{i}" for i in (1, 2, 4, 5, 7, 8, 10, 11)]
