"""`log.tokens_every` over whole runs: the same training, and samples that say what it did to each token."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from transformers import AutoTokenizer

from sharpen.errors import RecipeError
from sharpen.launch.run import resume, start
from sharpen.runs.sample_files import SampleFiles
from sharpen.runs.samples import LISTS
from tiny_runs import Raising, left_behind, reward_file, tiny_recipe, tiny_start_model

EVERY_METHOD = ("grpo", "ppo", "gspo", "dapo", "rft", "sft", "dpo", "reward_model", "process_reward_model")
NO_EVALUATION: dict[str, Any] = {"evaluation": {"every": 0}, "checkpoint": {"best": None}}


class PowerCut(KeyboardInterrupt):
    """Nothing catches it."""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_start_model(tmp_path_factory.mktemp("tokens") / "model")


@pytest.fixture(scope="module")
def reward(tmp_path_factory: pytest.TempPathFactory) -> str:
    return reward_file(tmp_path_factory.mktemp("reward") / "digits.py")


def without_tokens(left: Mapping[str, Any]) -> dict[str, Any]:
    rows = {
        name: [{column: value for column, value in row.items() if column not in LISTS} for row in rows]
        for name, rows in left["samples"].items()
    }
    return {**left, "samples": rows}


@pytest.mark.parametrize("method", EVERY_METHOD)
def test_recording_changes_no_bit_of_the_training(method: str, model: Path, reward: str, tmp_path: Path) -> None:
    settings = {"reward": reward, **(NO_EVALUATION if method.endswith("reward_model") else {})}
    for name, log in (("with", {"tokens_every": 1}), ("without", {})):
        start(tiny_recipe(tmp_path / name, model, method, log=log, **settings))
    recorded, plain = (left_behind(tmp_path / name) for name in ("with", "without"))
    assert {row["step"] for rows in recorded["samples"].values() for row in rows if row.get("token_ids")} == {
        *range(1, 7)
    }
    # Completions of data are only written with their tokens.
    recorded["samples"] = {name: rows for name, rows in recorded["samples"].items() if name in plain["samples"]}
    recorded = without_tokens(recorded)
    assert recorded.keys() == plain.keys()
    for name, value in plain.items():
        if name != "trainer/state.json":
            assert recorded[name] == value, name


@pytest.mark.parametrize(
    ("method", "log", "sampled", "with_tokens"),
    [
        ("grpo", {"tokens_every": 4}, [1, 2, 3, 4, 5, 6], [1, 4]),
        ("grpo", {"samples_every": 2, "tokens_every": 4}, [2, 4, 6], [2, 4]),
        ("sft", {"tokens_every": 4}, [1, 4], [1, 4]),
        ("sft", {"samples_every": 2, "tokens_every": 4}, [2, 4], [2, 4]),
        ("reward_model", {"tokens_every": 6}, [1, 6], [1, 6]),
        ("sft", {}, [], []),
    ],
)
def test_the_steps_that_have_tokens(
    method: str,
    log: dict[str, int],
    sampled: list[int],
    with_tokens: list[int],
    model: Path,
    reward: str,
    tmp_path: Path,
) -> None:
    start(tiny_recipe(tmp_path / "run", model, method, reward=reward, log=log, **NO_EVALUATION))
    files = SampleFiles(tmp_path / "run" / "samples")
    assert files.steps() == sampled
    assert files.steps_with("token_ids") == with_tokens


def test_a_row_says_what_the_training_did_to_each_token(model: Path, reward: str, tmp_path: Path) -> None:
    """One update per rollout and no penalty: the ratio is 1, the coefficient Â, the weight 1/(P·G·|o|)."""
    method = {"minibatches": 1, "updates_per_rollout": 1, "beta": 0.0, "std_eps": 0.0}
    start(
        tiny_recipe(
            tmp_path / "run", model, "grpo", method=method, reward=reward, log={"tokens_every": 1}, **NO_EVALUATION
        )
    )
    tokenizer = AutoTokenizer.from_pretrained(model)
    file = tmp_path / "run" / "samples" / "step_000001.parquet"
    schema = pq.read_schema(file)
    assert all(schema.field(name).type == LISTS[name] for name in schema.names if name in LISTS)
    rows = pq.read_table(file).to_pylist()
    trained = 0
    for group in (rows[i : i + 4] for i in range(0, 16, 4)):
        rewards = np.array([row["reward"] for row in group])
        for row in group:
            n = row["tokens"]
            whole = tokenizer.decode(row["token_ids"], skip_special_tokens=False, clean_up_tokenization_spaces=False)
            assert len(row["token_ids"]) == len(row["token_texts"]) == n
            assert "".join(row["token_texts"]) == whole
            assert row["loss_mask"] == [True] * n
            assert len(row["rollout_logprob"]) == n
            advantage = (row["reward"] - rewards.mean()) / rewards.std(ddof=1) if rewards.std() else 0.0
            assert row["advantage"] == pytest.approx([advantage] * n, rel=1e-5)
            assert row["weight"] == pytest.approx([1 / (4 * 4 * n)] * n, rel=1e-6)
            assert row["coefficient"] == pytest.approx([advantage] * n, rel=1e-5)
            if advantage:
                assert row["ratio"] == [1.0] * n
                assert row["clipped"] == [False] * n
                assert row["logprob"] == pytest.approx(row["rollout_logprob"], abs=1e-5)
                trained += 1
            else:
                assert row["ratio"] is None
                assert row["logprob"] is None
    assert trained


def test_groups_that_were_set_aside_have_tokens_and_nothing_computed(model: Path, tmp_path: Path) -> None:
    (tmp_path / "has_one.py").write_text("def reward(completion, **row):\n    return float('1' in completion)\n")
    reward = f"{tmp_path / 'has_one.py'}:reward"
    start(tiny_recipe(tmp_path / "run", model, "dapo", reward=reward, log={"tokens_every": 1}, **NO_EVALUATION))
    known = {"rollout_logprob", "advantage", "coefficient", "weight"}
    of_trained = {*known, "logprob", "old_logprob", "ratio", "clipped", "entropy"}
    computed = set(LISTS) - {"token_ids", "token_texts", "loss_mask"}
    aside = 0
    for table in SampleFiles(tmp_path / "run" / "samples").tables():
        rows = table.to_pylist()
        # Those that are trained on come first: four groups whose rewards differ.
        differ = [len({row["reward"] for row in rows[i : i + 4]}) > 1 for i in range(0, len(rows), 4)]
        kept = min(4, sum(differ))
        assert differ[:kept] == [True] * kept
        aside += len(differ) - kept
        for number, row in enumerate(rows):
            trained = number < 4 * kept
            assert len(row["token_texts"]) == len(row["token_ids"]) == row["tokens"]
            assert row["loss_mask"] == [trained] * row["tokens"]
            found = {name for name in computed if row.get(name) is not None}
            assert found == ((of_trained if any(row["advantage"]) else known) if trained else set())
    assert aside


@pytest.mark.parametrize("method", ["grpo", "sft", "ppo"])
def test_cut_off_and_resumed_the_samples_are_the_same(method: str, model: Path, reward: str, tmp_path: Path) -> None:
    def fall() -> None:
        raise PowerCut

    settings: dict[str, Any] = {"reward": reward, "log": {"tokens_every": 1}, **NO_EVALUATION}
    start(tiny_recipe(tmp_path / "whole", model, method, **settings))
    with pytest.raises(PowerCut):
        start(
            tiny_recipe(tmp_path / "cut", model, method, **settings),
            loggers=[Raising(lambda step: step == 5, fall)],
        )
    resume(tmp_path / "cut")
    # As text, for NaN is not equal to itself.
    whole, cut = (repr(left_behind(tmp_path / name)["samples"]) for name in ("whole", "cut"))
    assert "token_ids" in whole
    assert cut == whole


def test_a_merged_file_holds_steps_with_tokens_and_without(tmp_path: Path) -> None:
    def rows(step: int) -> list[dict[str, Any]]:
        tokens = {
            "token_ids": [1, step],
            "token_texts": ["a", ""],
            "loss_mask": [True, False],
            "coefficient": np.array([0.5, np.nan], dtype=np.float32),
            "clipped": [False, None],
        }
        empty = {name: type(values)() for name, values in tokens.items() if name != "coefficient"}
        # The first has no token, the second nothing computed.
        computed = [{**empty, "coefficient": np.zeros(0, np.float32)}, {"token_ids": [3]}, tokens]
        return [{"step": step, "prompt": f"{step}", **(row if step % 10 == 0 else {})} for row in computed]

    merged, alone = SampleFiles(tmp_path / "merged"), SampleFiles(tmp_path / "alone")
    for step in range(1, 101):
        merged.write(step, rows(step))
        alone.write(step, rows(step), every=1000)
    assert [file.name for file in merged.folder.iterdir()] == ["steps_000001-000100.parquet"]
    assert merged.steps_with("coefficient") == [*range(10, 101, 10)]
    for step in (1, 10, 99, 100):
        found, wanted = merged.of_step(step), alone.of_step(step)
        assert found is not None
        assert wanted is not None
        assert found.schema == wanted.schema
        assert repr(found.to_pylist()) == repr(wanted.to_pylist())
    assert merged.cut_back(30) == []
    last = merged.of_step(30)
    assert last is not None
    assert {name: last.schema.field(name).type for name in last.column_names if name in LISTS} == {
        name: LISTS[name] for name in ("token_ids", "token_texts", "loss_mask", "coefficient", "clipped")
    }


@pytest.mark.parametrize(
    ("log", "said"),
    [
        ({"samples_every": 0, "tokens_every": 2}, "tokens are written with samples, and samples_every is 0"),
        ({"samples_every": 2, "tokens_every": 3}, "3 is not a multiple of samples_every, 2"),
        ({"tokens_every": -1}, "tokens_every"),
    ],
)
def test_a_recipe_whose_tokens_would_never_be_written(
    log: dict[str, int], said: str, model: Path, reward: str, tmp_path: Path
) -> None:
    with pytest.raises(RecipeError, match=said):
        tiny_recipe(tmp_path / "run", model, "grpo", reward=reward, log=log)
