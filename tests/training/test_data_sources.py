"""Runs with several data sources: which prompts a step takes, what scores them, what is measured, and law 5."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from sharpen.data.cursor import Cursor
from sharpen.errors import ChangedError, DataError, RecipeError, RewardError
from sharpen.launch.run import Run, resume, start
from sharpen.recipe.loading import make_recipe
from sharpen.runs.folder import read_metrics
from sharpen.system.seeds import stream_seed
from sharpen.training.learner import Learner
from tiny_runs import Raising, assert_left_the_same, left_behind, tiny_recipe, tiny_start_model, tiny_tree

TASK = "arithmetic?terms=2&digits=1&train_size=5&held_out_size=3&demonstration_size=6&preference_size=4"
FILES = """
def digits(completion, **row):
    return sum(c.isdigit() for c in completion) / 8

def plain(completion, wanted, **row):
    return float(wanted in completion)

def picky(completion, **row):
    return None if "1" in completion else 0.0
"""
ORDER = "sums sums sums plain"
"""With shares 3 and 1, sums is due by prompt 4/3, 8/3 and 4, and plain by 4: at this tie, sums is the first."""


class PowerCut(KeyboardInterrupt):
    """Nothing catches it, not even where a logger raises it."""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_start_model(tmp_path_factory.mktemp("sources") / "model")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rows of the user's own, and rewards."""
    folder = tmp_path_factory.mktemp("files")
    (folder / "mine.py").write_text(FILES)
    for name, size in (("train", 3), ("held_out", 4)):
        rows = [{"prompt": f"{i}+{i}=", "wanted": str(i)} for i in range(1, size + 1)]
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    done = [
        {"prompt": f"{i}+{i}=", "completion": f"#{i + i}", "chosen": f"#{i + i}", "rejected": "#"} for i in (1, 2, 3)
    ]
    (folder / "done.jsonl").write_text("".join(json.dumps(row) + "\n" for row in done))
    return folder


def sources(files: Path, **plain: Any) -> dict[str, Any]:
    """A task and a file, three to one."""
    own = {"train": f"{files}/train.jsonl", "held_out": f"{files}/held_out.jsonl", "reward": f"{files}/mine.py:plain"}
    return {
        "task": None,
        "sources": {"sums": {"task": TASK, "share": 3, "reward": f"{files}/mine.py:digits"}, "plain": {**own, **plain}},
    }


def run_of(path: Path, model: Path, files: Path, name: str = "grpo", /, **changes: Any) -> Run:
    return start(tiny_recipe(path, model, name, **{"data": sources(files), **changes}))


def samples(run: Path, step: int) -> list[dict[str, Any]]:
    return pq.read_table(run / "samples" / f"step_{step:06d}.parquet").to_pylist()


def by_prompt(rows: list[dict[str, Any]], group_size: int = 4) -> list[dict[str, Any]]:
    return rows[::group_size]


@pytest.fixture(scope="module")
def run(model: Path, files: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six steps of four prompts."""
    return run_of(tmp_path_factory.mktemp("run") / "run", model, files).path


# The draw


def test_every_step_takes_the_shares_in_their_order(run: Path) -> None:
    for step in range(1, 7):
        assert " ".join(row["source"] for row in by_prompt(samples(run, step))) == ORDER


def test_each_source_goes_through_its_own_epochs(run: Path) -> None:
    taken: dict[str, list[str]] = {"sums": [], "plain": []}
    for step in range(1, 7):
        for row in by_prompt(samples(run, step)):
            taken[row["source"]].append(row["prompt_id"])
    for name, (size, count) in {"sums": (5, 18), "plain": (3, 6)}.items():
        order = Cursor(size, stream_seed(7, f"source/{name}")).take(count)
        assert taken[name] == [f"{name}:{item + 1}" for item in order]
    state = json.loads((run / "checkpoints" / "step_000006" / "trainer" / "state.json").read_text())
    cursor = state["collector"]["cursor"]
    # 18 prompts of 5, and 6 of 3; a new epoch begins with its first prompt.
    found = {name: (of["share"], of["epoch"], of["position"]) for name, of in cursor.items()}
    assert found == {"sums": ("3.0", 3, 3), "plain": ("1.0", 1, 3)}


def test_a_step_may_have_fewer_prompts_than_there_are_sources(model: Path, files: Path, tmp_path: Path) -> None:
    one = {"training": {"prompts_per_step": 1}, "method": {"minibatches": 1}}
    done = run_of(tmp_path / "run", model, files, **one)
    assert [samples(done.path, step)[0]["source"] for step in range(1, 7)] == f"{ORDER} sums sums".split()
    last = done.metric_rows()[-1]
    assert last["source/sums/prompts"] == 1
    assert not any(name.startswith("source/plain") for name in last)


def test_a_lag_and_a_seed_change_no_source(model: Path, files: Path, run: Path, tmp_path: Path) -> None:
    corrected = {"method": {"tis_cap": 2.0}, "rollout": {"lag": 2}}
    lagging = run_of(tmp_path / "lag", model, files, **corrected).path
    for step in range(1, 7):
        for column in ("source", "prompt_id", "draw_id"):
            assert [row[column] for row in samples(lagging, step)] == [row[column] for row in samples(run, step)]
    other = run_of(tmp_path / "seed", model, files, seed=8, training={"steps": 1}).path
    assert " ".join(row["source"] for row in by_prompt(samples(other, 1))) == ORDER


def test_each_round_of_dynamic_sampling_takes_the_shares(model: Path, files: Path, tmp_path: Path) -> None:
    """`plain` never has rewards that differ, so that every step goes on to its last round."""
    flat = sources(files, reward=f"{files}/mine.py:flat")
    mine = files / "mine.py"
    mine.write_text(FILES + "\ndef flat(completion, **row):\n    return 0.5\n")
    done = run_of(tmp_path / "run", model, files, "dapo", data=flat, training={"steps": 2})
    drawn: list[dict[str, Any]] = []
    for step in (1, 2):
        drawn += by_prompt(sorted(samples(done.path, step), key=lambda row: row["draw_id"]))
    assert " ".join(row["source"] for row in drawn) == " ".join([ORDER] * (len(drawn) // 4))
    for step, row in enumerate(done.metric_rows()[-2:], 1):
        rounds = row["source/sums/prompts"] / 3
        assert rounds == row["source/plain/prompts"] == len(samples(done.path, step)) / 16
        assert row["source/plain/groups/trained"] == 0
        assert row["source/sums/groups/trained"] == row["groups/trained"]


# Rewards, metrics and measures


def test_every_completion_has_its_own_sources_reward(run: Path) -> None:
    seen = set()
    for step in range(1, 7):
        for row in samples(run, step):
            if row["source"] == "sums":
                expected, part = sum(c.isdigit() for c in row["completion"]) / 8, "digits"
            else:
                expected, part = float(row["prompt"][0] in row["completion"]), "plain"
            assert row["reward"] == expected == row[f"reward/{part}"]
            seen.add((row["source"], expected))
    assert len(seen) > 3


def test_the_metrics_of_a_source_are_those_of_its_samples(run: Path) -> None:
    for step in range(1, 7):
        metrics, rows = read_metrics(run)[step], samples(run, step)
        for name in ("sums", "plain"):
            own = [row for row in rows if row["source"] == name]
            assert metrics[f"source/{name}/prompts"] == len(own) / 4 == {"sums": 3, "plain": 1}[name]
            assert metrics[f"source/{name}/reward/mean"] == pytest.approx(sum(row["reward"] for row in own) / len(own))
            assert metrics[f"source/{name}/length/mean"] == pytest.approx(sum(row["tokens"] for row in own) / len(own))
            cut = sum(row["finish"] == "length" for row in own)
            assert metrics[f"source/{name}/truncated"] == pytest.approx(cut / len(own))
        mean = (3 * metrics["source/sums/reward/mean"] + metrics["source/plain/reward/mean"]) / 4
        assert metrics["reward/mean"] == pytest.approx(mean)


def test_held_out_measures_over_all_prompts_and_of_each_source(run: Path) -> None:
    """Three held-out problems of the task, four rows of the file."""
    measured = [row for row in read_metrics(run) if "held_out/reward" in row]
    assert [row["step"] for row in measured] == [0, 2, 4, 6]
    for row in measured:
        for name in ("pass@1", "pass@2", "reward", "length", "truncated"):
            parts = 3 * row[f"held_out/sums/{name}"] + 4 * row[f"held_out/plain/{name}"]
            assert row[f"held_out/{name}"] == pytest.approx(parts / 7)
            assert f"held_out/sums/{name}_low" in row
    assert len({row["held_out/sums/reward"] for row in measured}) > 1


def test_evaluation_prompts_are_of_each_source(model: Path, files: Path, tmp_path: Path) -> None:
    two = {"evaluation": {"prompts": 2, "every": 6}, "training": {"steps": 1}, "checkpoint": {"best": "plain/reward"}}
    row = run_of(tmp_path / "run", model, files, **two).metric_rows()[0]
    assert row["held_out/reward"] == pytest.approx((row["held_out/sums/reward"] + row["held_out/plain/reward"]) / 2)


def test_a_source_without_held_out_rows_is_not_measured(model: Path, files: Path, tmp_path: Path) -> None:
    some = {"data": sources(files, held_out=None), "training": {"steps": 1}}
    row = run_of(tmp_path / "run", model, files, **some).metric_rows()[0]
    assert row["held_out/reward"] == row["held_out/sums/reward"]
    assert not any("plain" in name for name in row)


def test_the_best_checkpoint_may_be_a_sources(model: Path, files: Path, tmp_path: Path) -> None:
    best = {"checkpoint": {"best": "plain/reward", "every": 0, "keep": 1}}
    done = run_of(tmp_path / "run", model, files, **best)
    values = {row["step"]: row["held_out/plain/reward"] for row in done.metric_rows() if "held_out/plain/reward" in row}
    state = json.loads((done.model / "trainer" / "state.json").read_text())
    later = {step: value for step, value in values.items() if step}
    assert state["best"]["value"] == max(later.values())


def without_answers(tree: dict[str, Any]) -> dict[str, Any]:
    """The recipe of a run that measures its loss alone."""
    return {**tree, "evaluation": {"every": 2, "prompts": 6}}


def test_the_least_loss_of_a_source_is_the_best(model: Path, files: Path, tmp_path: Path) -> None:
    done = f"{files}/done.jsonl"
    two = {name: {"train": done, "held_out": done} for name in ("one", "two")}
    best = {"data": {"task": None, "sources": two}, "checkpoint": {"best": "two/loss"}}
    run = start(make_recipe(without_answers(tiny_tree(tmp_path / "run", model, "sft", **best))))
    losses = [row["held_out/two/loss"] for row in run.metric_rows() if row["step"] and "held_out/two/loss" in row]
    assert losses[0] > min(losses)
    state = json.loads((run.model / "trainer" / "state.json").read_text())
    assert state["best"]["value"] == min(losses)


# Methods that learn from completions


@pytest.mark.parametrize("method", ["sft", "dpo", "reward_model"])
def test_completions_of_two_sources(method: str, model: Path, files: Path, tmp_path: Path, monkeypatch: Any) -> None:
    learned: list[str] = []
    learn = Learner.learn

    def recording(self: Learner, groups: Any, *arguments: Any, **options: Any) -> Any:
        learned.extend(group.prompt.source for group in groups)
        return learn(self, groups, *arguments, **options)

    monkeypatch.setattr(Learner, "learn", recording)
    own = {"train": f"{files}/done.jsonl", "held_out": f"{files}/done.jsonl"}
    mixed = {"task": None, "sources": {"sums": {"train": f"{files}/done.jsonl", "share": 3}, "plain": own}}
    tree = tiny_tree(tmp_path / "run", model, method, data=mixed, checkpoint={"best": None})
    run = start(make_recipe(without_answers(tree)))
    assert " ".join(learned) == " ".join([ORDER] * 6)
    first, *steps = run.metric_rows()
    assert first["held_out/loss"] == first["held_out/plain/loss"]
    assert all(row["source/sums/prompts"] == 3 for row in steps)
    assert all(row["grad_norm"] > 0 for row in steps)


def test_rft_keeps_each_completions_source_and_takes_them_by_the_shares(
    model: Path, files: Path, tmp_path: Path, monkeypatch: Any
) -> None:
    learned: list[str] = []
    learn = Learner.learn

    def recording(self: Learner, groups: Any, *arguments: Any, **options: Any) -> Any:
        learned.extend(group.prompt.source for group in groups)
        return learn(self, groups, *arguments, **options)

    monkeypatch.setattr(Learner, "learn", recording)
    data = sources(files, reward=f"{files}/mine.py:digits")
    # Of four prompts, three are the task's.
    run = run_of(tmp_path / "run", model, files, "rft", data=data, method={"prompts": 4})
    sampled = samples(run.path, 0)
    assert [row["prompt_id"] for row in by_prompt(sampled, 8)] == ["sums:1", "sums:2", "sums:3", "plain:1"]
    kept = [json.loads(line) for line in (run.path / "kept.jsonl").read_text().splitlines()]
    assert {line["source"] for line in kept} == {"sums", "plain"}
    assert all(line["prompt_id"].startswith(line["source"]) for line in kept)
    assert " ".join(learned) == " ".join([ORDER] * 6)
    first = run.metric_rows()[0]
    assert (first["source/sums/prompts"], first["source/plain/prompts"]) == (3, 1)


def test_rft_names_a_source_of_which_nothing_is_kept(model: Path, files: Path, tmp_path: Path) -> None:
    data = sources(files, reward=f"{files}/mine.py:picky")
    with pytest.raises(
        RewardError, match=r"none of the 24 completions .* to prompts of source plain has a reward of 0.25"
    ):
        run_of(tmp_path / "run", model, files, "rft", data=data)


# Law 5

RESUMED: dict[str, tuple[str, dict[str, Any]]] = {
    "grpo": ("grpo", {}),
    "lag": ("grpo", {"method": {"tis_cap": 2.0}, "rollout": {"lag": 2}}),
    "dapo": ("dapo", {}),
    "rft": ("rft", {"data": {"sources": {"plain": {"reward": None}}}, "reward": "DIGITS"}),
    "turns": ("grpo", {"data": {"sources": {"plain": {"turns": "tiny_turns:answer", "max_turns": 3}}}}),
}


def of_case(case: str, path: Path, model: Path, files: Path) -> Any:
    method, changes = RESUMED[case]
    data = sources(files)
    for name, own in changes.get("data", {}).get("sources", {}).items():
        data["sources"][name] |= own
    reward = {"reward": f"{files}/mine.py:digits"} if "reward" in changes else {}
    rest = {key: value for key, value in changes.items() if key not in ("data", "reward")}
    return tiny_recipe(path, model, method, data=data, **rest, **reward)


@pytest.mark.parametrize("case", RESUMED)
def test_a_run_that_was_cut_off_ends_bit_for_bit(case: str, model: Path, files: Path, tmp_path: Path) -> None:
    assert start(of_case(case, tmp_path / "whole", model, files)).finished
    whole = left_behind(tmp_path / "whole")
    assert all(row["grad_norm"] > 0 for row in whole["metrics"][1:])
    cut = tmp_path / "cut"

    def fall() -> None:
        raise PowerCut

    with pytest.raises(PowerCut):
        start(of_case(case, cut, model, files), loggers=[Raising(lambda step: step == 3, fall)])
    with pytest.raises(PowerCut):
        resume(cut, loggers=[Raising(lambda step: step == 5, fall)])
    assert resume(cut).finished
    assert_left_the_same(cut, whole)


def test_turns_of_one_source_leave_the_other_at_one_turn(model: Path, files: Path, tmp_path: Path) -> None:
    run = start(of_case("turns", tmp_path / "run", model, files))
    rows = [row for step in range(1, 7) for row in samples(run.path, step)]
    assert {row["turns"] for row in rows if row["source"] == "sums"} == {1}
    assert max(row["turns"] for row in rows if row["source"] == "plain") > 1
    metrics = run.metric_rows()[1:]
    assert all(row["source/sums/turns/mean"] == 1 for row in metrics)
    assert any(row["source/plain/turns/mean"] > 1 for row in metrics)


# What is refused


def test_a_resumed_run_needs_the_same_shares(model: Path, files: Path, tmp_path: Path) -> None:
    run = run_of(tmp_path / "run", model, files, training={"steps": 2}).path
    recipe = run / "recipe.yaml"
    recipe.write_text(recipe.read_text().replace("share: 3.0", "share: 2.0").replace("steps: 2", "steps: 3"))
    with pytest.raises(ChangedError, match=r"- `data\.sources\.sums\.share` was 3\.0 and is now 2\.0"):
        resume(run)
    assert resume(run, accept_changes=True).finished
    # Shares of 2 to 1 are dealt from the beginning; the second sum and the first plain are both due by draw 3.
    assert " ".join(row["source"] for row in by_prompt(samples(run, 3))) == "sums sums plain sums"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data": {"train": "x.jsonl"}}, "`data`: with `sources`, each source has its own `task` or `train`"),
        ({"data": {"held_out": "x.jsonl"}}, "each source has its own `held_out`"),
        (
            {"data": {"sources": {"plain": {"share": 0}}}},
            "`data.sources.plain.share`: .* greater than or equal to 0.000001",
        ),
        (
            {"data": {"sources": {"plain": {"shares": 2}}}},
            "unknown setting `data.sources.plain.shares`.* `data.sources.plain.share`",
        ),
        ({"data": {"sources": {"plain": {"train": None}}}}, "`data.sources.plain`: give either `task` .* or `train`"),
        ({"data": {"sources": {"plain": {"reward": None}}}}, "`data.sources.plain.reward`: method grpo needs a reward"),
        ({"data": {"sources": {"a.b": {"task": "sums"}}}}, "`data.sources`: the name of a source .* not 'a.b'"),
        ({"data": {"sources": {"reward": {"task": "sums"}}}}, "`data.sources`: the name of a source .* not 'reward'"),
        (
            {"reward": "exact_answer"},
            "`reward` has no effect: only for data sources without a reward",
        ),
        (
            {"data": {"sources": {"plain": {"max_turns": 2}}}},
            "`data.sources.plain.max_turns` has no effect",
        ),
        (
            {"rollout": {"turns": "tiny_turns:answer"}, "data": {"sources": {"plain": {"turns": "tiny_turns:answer"}}}},
            "`rollout.turns` is for all data sources, and source plain has turns of its own",
        ),
    ],
)
def test_settings_that_contradict_each_other(
    changes: Mapping[str, Any], message: str, model: Path, files: Path, tmp_path: Path
) -> None:
    data = sources(files)
    for key, value in changes.get("data", {}).items():
        if key == "sources":
            for name, own in value.items():
                data["sources"][name] = {**data["sources"].get(name, {}), **own}
        else:
            data[key] = value
    rest = {key: value for key, value in changes.items() if key != "data"}
    with pytest.raises(RecipeError, match=message):
        tiny_recipe(tmp_path / "run", model, "grpo", data=data, **rest)


@pytest.mark.parametrize(
    ("plain", "error", "message"),
    [
        ({"train": "nowhere.jsonl"}, DataError, "data.sources.plain: .*nowhere.jsonl"),
        ({"reward": "exact_answr"}, RewardError, "data.sources.plain: .*exact_answer"),
        ({"reward": "exact_answer"}, RewardError, r"'answer', which source plain, \S*train.jsonl does not have"),
        ({"reward": "regex"}, RewardError, "data.sources.plain: "),
        ({"task": "arithmetik", "train": None, "held_out": None}, RecipeError, "data.sources.plain: .*arithmetic"),
        ({"turns": "tiny_turns:nothing"}, RecipeError, "data.sources.plain.turns 'tiny_turns:nothing'"),
    ],
)
def test_what_cannot_be_used_is_named_with_its_source(
    plain: dict[str, Any], error: type[Exception], message: str, model: Path, files: Path, tmp_path: Path
) -> None:
    with pytest.raises(error, match=message):
        run_of(tmp_path / "run", model, files, data=sources(files, **plain))
    assert not (tmp_path / "run" / "recipe.yaml").exists()


def test_a_prompt_that_does_not_fit_is_named_with_its_source_and_line(model: Path, files: Path, tmp_path: Path) -> None:
    long = tmp_path / "long.jsonl"
    long.write_text('{"prompt": "1+1=", "wanted": "2"}\n' + json.dumps({"prompt": "1+" * 20, "wanted": "2"}) + "\n")
    with pytest.raises(DataError, match=r"source plain, \S*long.jsonl:2: does not fit"):
        run_of(tmp_path / "run", model, files, data=sources(files, train=str(long)))


def test_process_rewards_need_steps_of_every_source(model: Path, files: Path, tmp_path: Path) -> None:
    steps = {"name": "steps", "function": "sharpen.data.tasks.arithmetic:step_rewards"}
    data = sources(files)
    data["sources"]["sums"]["reward"] = steps
    with pytest.raises(RecipeError, match=r"data.sources.plain: method grpo .* needs a reward for every step"):
        run_of(tmp_path / "run", model, files, data=data, method={"supervision": "process"})


# Python


def test_rows_and_rewards_may_be_python_objects(model: Path, files: Path, tmp_path: Path) -> None:
    rows = [json.loads(line) for line in (files / "train.jsonl").read_text().splitlines()]

    def own(completion: str, wanted: str, **row: Any) -> float:
        return float(wanted in completion)

    data = sources(files, train=rows, held_out=None, reward=own)
    path = tmp_path / "run"
    with pytest.raises(PowerCut):
        start(tiny_recipe(path, model, "grpo", data=data), loggers=[Raising(lambda step: step == 3, _fall)])
    with pytest.raises(RecipeError, match=r"given `data.sources.plain.train`, `data.sources.plain.reward` in Python"):
        resume(path)
    done = resume(path, {"data.sources.plain.train": rows, "data.sources.plain.reward": own})
    assert done.finished
    named = run_of(tmp_path / "named", model, files, data=sources(files, held_out=None))
    weights = [(one.model / "model.safetensors").read_bytes() for one in (done, named)]
    assert weights[0] == weights[1]


def _fall() -> None:
    raise PowerCut
