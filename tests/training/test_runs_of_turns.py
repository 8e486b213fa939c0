"""Runs whose trajectories have several turns: metrics, failing environments, and evaluations with known results."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

import sharpen
from sharpen.cli.app import app
from sharpen.errors import RecipeError, RewardError
from sharpen.launch.run import start
from sharpen.models.policy import Policy
from sharpen.rollout.collector import LocalCollector
from sharpen.rollout.engine import EngineCounters, FinishedRequest, Request, Snapshot
from sharpen.rollout.settings import EngineSettings
from sharpen.rollout.sources import Collected
from sharpen.rollout.turns import Reply
from sharpen.runs.folder import read_metrics
from sharpen.types import End, Finish, Group, Prompt, Trajectory
from tiny_runs import digits, reward_file, tiny_recipe, tiny_start_model
from tiny_turns import TOKENIZER, TURNS


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_start_model(tmp_path_factory.mktemp("turns") / "model")


class Echo:
    """Draws the last token of its context, and ends the turn."""

    def __init__(self, settings: EngineSettings, policy: Policy) -> None:
        self.version, self.counters = policy.version, EngineCounters()
        self.context_length = policy.context_length
        self._unfinished: list[Request] = []

    def add(self, requests: Sequence[Request]) -> None:
        self._unfinished += requests

    def next_finished(self, at_least: int = 1) -> list[FinishedRequest]:
        done, self._unfinished = self._unfinished, []
        return [
            FinishedRequest(r, r.token_ids[-1:], (-1.0,), Finish.EOS, TOKENIZER.decode(r.token_ids[-1:]), self.version)
            for r in done
        ]

    def cancel(self, draw_ids: Collection[int]) -> None: ...

    def release(self, draw_ids: Collection[int]) -> None: ...

    def load(self, snapshot: Snapshot) -> None:
        self.version = snapshot.version

    def close(self) -> None: ...


def told(prompt: Prompt, trajectory: Trajectory) -> Reply | End:
    """Two turns, and a third where the row says so; each reply ends with the row's digit."""
    if len(trajectory.messages) >= (5 if prompt.row["turns"] == 3 else 3):
        return End.DONE
    added = TOKENIZER(f"#{prompt.row['told']}")["input_ids"]
    last = trajectory.last
    return Reply((*last.prefix_ids, *last.token_ids, *added), ({"role": "tool", "content": "told"},))


def long_reply(prompt: Prompt, trajectory: Trajectory) -> Reply:
    """Of 15 tokens."""
    last = trajectory.last
    return Reply((*last.prefix_ids, *last.token_ids, *TOKENIZER("1" * 15)["input_ids"]))


def test_conversations_that_outgrow_the_memory_for_keys_and_values_end(model: Path, tmp_path: Path) -> None:
    """32 slots of 256 bytes hold 17 tokens, of the 32 of the model's context. A prompt of 2 tokens, an answer and a
    reply are more than that, so no conversation has a second turn, neither in training nor in evaluations."""
    rows = [{"prompt": f"{a}+"} for a in range(4)]
    run = sharpen.train(
        model,
        "grpo",
        rows,
        held_out=rows,
        reward=digits,
        run=tmp_path / "run",
        quiet=True,
        rollout={
            "engine": {"kv_gib": 32 * 256 / 2**30},
            "turns": f"{__file__}:long_reply",
            "max_new_tokens": 8,
        },
        training={"steps": 1, "prompts_per_step": 4},
        evaluation={"every": 1, "prompts": 4},
    )
    row = run.metric_rows()[-1]
    # Some wrote fewer than 8 tokens and ended with their reply.
    assert row["truncated"] == row["held_out/truncated"] == 1.0
    assert max(row["length/mean"], row["held_out/length"]) < 8
    assert row["turns/mean"] == 1


def is_answer(completion: str, answer: str) -> float:
    return float(completion == answer)


ROWS = [
    {"prompt": "1+", "completion": "2", "told": "7", "answer": "7", "turns": 2},
    {"prompt": "2+", "completion": "2", "told": "8", "answer": "8", "turns": 2},
    {"prompt": "3+", "completion": "2", "told": "9", "answer": "9", "turns": 3},
    {"prompt": "4+", "completion": "2", "told": "5", "answer": "+", "turns": 2},
]
"""An echo repeats ``+`` in its first turn and what it is told in the last, which is the answer for three of the four.
It draws 2, 2, 3 and 2 tokens."""


def test_evaluations_go_through_the_same_turns(model: Path, tmp_path: Path) -> None:
    """During the run, and with `sharpen eval`: 3 of 4 are right, and 9/4 tokens were drawn."""
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    run = sharpen.train(
        model,
        "sft",
        tmp_path / "rows.jsonl",
        held_out=tmp_path / "rows.jsonl",
        reward=f"{__file__}:is_answer",
        run=tmp_path / "run",
        quiet=True,
        rollout={
            "engine": {"name": f"{__file__}:Echo"},
            "turns": f"{__file__}:told",
            "max_new_tokens": 8,
        },
        training={"steps": 1, "prompts_per_step": 2},
        evaluation={"every": 1, "prompts": 4, "n": 2},
    )
    for row in run.metric_rows():
        assert (row["held_out/pass@1"], row["held_out/length"], row["held_out/truncated"]) == (0.75, 2.25, 0.0)
    out = tmp_path / "answers.parquet"
    said = CliRunner().invoke(app, ["eval", str(run.path), "--json", "--out", str(out)], catch_exceptions=False)
    measures = json.loads(said.stdout)["measures"]
    assert (measures["pass@1"]["mean"], measures["length"]["mean"]) == (0.75, 2.25)
    answers = pq.read_table(out).to_pylist()
    assert [a["completion"] for a in answers] == ["7", "7", "8", "8", "9", "9", "5", "5"]
    # The tokens that the policy drew, and all that was said.
    assert [a["tokens"] for a in answers] == [2, 2, 2, 2, 3, 3, 2, 2]
    assert [m["content"] for m in json.loads(answers[4]["messages"])] == ["+", "told", "9", "told", "9"]
    assert {a["end"] for a in answers} == {"done"}


def test_a_limit_of_turns_holds_in_evaluations_too(model: Path, tmp_path: Path) -> None:
    """With one turn the echo never sees what it is told: only the last row's answer is ``+``."""
    run = sharpen.train(
        model,
        "sft",
        ROWS,
        held_out=ROWS,
        reward=is_answer,
        run=tmp_path / "run",
        quiet=True,
        rollout={
            "engine": {"name": f"{__file__}:Echo"},
            "turns": f"{__file__}:told",
            "max_turns": 1,
            "max_new_tokens": 8,
        },
        training={"steps": 1, "prompts_per_step": 2},
        evaluation={"every": 1, "prompts": 4, "n": 2},
    )
    assert run.metric_rows()[-1]["held_out/pass@1"] == 0.25


def test_the_metrics_of_a_step_count_its_turns_and_samples(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[list[Group]] = []
    collect = LocalCollector.collect

    def recording(self: LocalCollector, prompts: list[Prompt], group_size: int) -> Collected:
        collected = collect(self, prompts, group_size)
        drawn.append(collected.groups)
        return collected

    monkeypatch.setattr(LocalCollector, "collect", recording)
    recipe = tiny_recipe(
        tmp_path / "run",
        model,
        "grpo",
        reward=reward_file(tmp_path / "r.py"),
        rollout=TURNS,
        evaluation={"every": 0},
        checkpoint={"best": None},
    )
    assert start(recipe).finished
    rows = [row for row in read_metrics(tmp_path / "run") if "turns/mean" in row]
    assert len(rows) == len(drawn) == 6
    for row, groups in zip(rows, drawn, strict=True):
        trajectories = [t for group in groups for t in group.trajectories]
        said = [sum(m["role"] == "assistant" for m in t.messages) for t in trajectories]
        assert row["turns/mean"] == sum(said) / len(trajectories)
        assert row["samples/mean"] == sum(len(t.samples) for t in trajectories) / len(trajectories)
        assert row["turns/out_of_turns"] == sum(t.end is End.OUT_OF_TURNS for t in trajectories) / len(trajectories)
        assert row["length/max"] == max(sum(t.loss_mask) for t in trajectories) <= 8
        # On-policy and in float32, the rollout's log-probabilities are the trainer's.
        assert row["mismatch/max"] < 1e-5
    assert {len(t.samples) for groups in drawn for group in groups for t in group.trajectories} == {1, 2, 3}


@pytest.mark.parametrize("method", ["grpo", "rft"])
def test_columns_and_metrics_do_not_depend_on_how_long_the_conversations_were(
    method: str, model: Path, tmp_path: Path
) -> None:
    """With one turn at most no conversation has several, but the recipe would allow a function to answer."""
    rollout = {**TURNS, "max_turns": 1}
    settings = {"threshold": 0.0, "prompts": 4} if method == "rft" else {}
    reward = reward_file(tmp_path / "r.py")
    start(
        tiny_recipe(
            tmp_path / "run",
            model,
            method,
            method=settings,
            reward=reward,
            rollout=rollout,
            training={"steps": 1},
            evaluation={"every": 0},
            checkpoint={"best": None},
            log={"samples_every": 1},
        )
    )
    for row in read_metrics(tmp_path / "run"):
        assert (row["turns/mean"], row["samples/mean"], row["environment/failed"]) == (1.0, 1.0, 0.0)
        assert 0.0 <= row["turns/out_of_turns"] <= 1.0
    files = list((tmp_path / "run" / "samples").glob("*.parquet"))
    assert len(files) == 1
    assert pq.read_table(files[0]).column_names[-4:] == ["end", "turns", "samples", "messages"]


def failing(model: Path, folder: Path, rate: float) -> Path:
    rollout = {
        **TURNS,
        "stop": list("0123456789+-=;#"),
        "turns": "tiny_turns:failing_now_and_then",
        "max_reward_failures": rate,
    }
    recipe = tiny_recipe(
        folder / "run",
        model,
        "grpo",
        reward=reward_file(folder / "r.py"),
        rollout=rollout,
        training={"steps": 2},
        evaluation={"every": 0},
        checkpoint={"best": None},
        log={"samples_every": 1},
    )
    start(recipe)
    return folder / "run"


def test_failing_environments_are_counted_and_the_run_goes_on(model: Path, tmp_path: Path) -> None:
    """Groups of 4: one of each fails. Every turn ends with a character, so none is cut off before it is answered."""
    run = failing(model, tmp_path, 0.25)
    for row in read_metrics(run)[-2:]:
        assert row["environment/failed"] == row["reward/failed"] == 0.25
    samples = pq.read_table(run / "samples" / "step_000001.parquet").to_pylist()
    lost = [s for s in samples if s["draw_id"] % 4 == 1]
    assert len(samples) == 4 * len(lost) == 16
    for sample in lost:
        assert sample["reward"] is None
        assert sample["end"] == "environment_failed"
        assert sample["error"].startswith(
            "the environment failed: rollout.turns raised OSError: no connection (tiny_turns.py"
        )
    assert all(s["reward"] is not None for s in samples if s not in lost)


def test_more_failing_environments_than_allowed_stop_the_run(model: Path, tmp_path: Path) -> None:
    with pytest.raises(
        RewardError, match=r"4 of 16 .*the environment failed: rollout.turns raised OSError: no connection"
    ):
        failing(model, tmp_path, 0.24)


@pytest.mark.parametrize(
    ("named", "said"),
    [("tiny_turns:answers", "Did you mean `answer`"), ("tiny_turns:TURNS", "is a dict, not a function")],
)
def test_a_name_that_is_no_function_is_refused_before_the_first_step(
    named: str, said: str, model: Path, tmp_path: Path
) -> None:
    reward = reward_file(tmp_path / "r.py")
    with pytest.raises(RecipeError, match=f"rollout.turns '{named}'.*{said}"):
        start(tiny_recipe(tmp_path / "run", model, "grpo", reward=reward, rollout={**TURNS, "turns": named}))
    assert not (tmp_path / "run" / "metrics.jsonl").exists()


def equal(completion: str) -> float:
    return 1.0


@pytest.mark.parametrize("rollout", [{}, TURNS], ids=["one turn", "turns"])
@pytest.mark.parametrize("method", ["grpo", "gspo"])
def test_a_step_without_an_advantage_changes_nothing(
    method: str, rollout: dict[str, Any], model: Path, tmp_path: Path
) -> None:
    settings = {"beta": 0.0} if method == "grpo" else {}
    reward = f"{__file__}:equal"
    recipe = tiny_recipe(tmp_path / "run", model, method, method=settings, reward=reward, rollout=rollout)
    assert start(recipe).finished
    assert [row["updates/applied"] for row in read_metrics(tmp_path / "run") if row["step"]] == [0] * 6
