"""Trajectories of several turns in a run's folder: as rows for people, and kept to be imitated."""

import json
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq

from conversations import MESSAGES, cut_off, group_of, in_one_sample, in_two_samples
from sharpen.models.character_model import character_tokenizer
from sharpen.runs.folder import RunFolder
from sharpen.runs.samples import sample_rows
from sharpen.runs.trajectories import trajectory_from_json, trajectory_to_json
from sharpen.types import End, Finish, Group, Score, StepValue, Trajectory, single_turn

CHARACTERS = character_tokenizer("0123456789+-=;#ab", context=64)
ONE = in_one_sample(CHARACTERS)
TWO = in_two_samples(CHARACTERS)
PREFIX = TWO.samples[0].prefix_ids
SINGLE = single_turn(PREFIX, (4, 5, 1), "12", logprobs=(-1.0, -0.5, -0.25), versions=(2, 2, 2), draw_id=9)
PRESENT = [
    "prompt_id", "prompt", "completion", "reward", "reward/r", "error", "tokens", "finish", "draw_id",
    "policy_version",
]  # fmt: skip


def scored(*trajectories: Trajectory) -> Group:
    scores = tuple(Score(float(i), {"r": float(i)}) for i in range(len(trajectories)))
    return group_of(CHARACTERS, *trajectories).scored(scores)


def test_single_turns_have_the_columns_that_they_had() -> None:
    (row, truncated) = sample_rows([scored(SINGLE, replace(SINGLE, end=End.OUT_OF_TOKENS))])
    assert list(row) == PRESENT
    assert list(row.values()) == ["p0", "1+1=", "12", 0.0, 0.0, None, 3, "eos", 9, 2]
    assert list(truncated) == PRESENT


def test_rows_of_several_turns_tell_the_conversation(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.write_samples(4, [scored(ONE, TWO, cut_off(TWO), SINGLE)], conversations=True)
    rows = pq.read_table(folder.samples / "step_000004.parquet").to_pylist()
    assert list(rows[0]) == ["step", *PRESENT, "end", "turns", "samples", "messages"]
    told = [[row[name] for name in ("completion", "tokens", "finish", "end", "turns", "samples")] for row in rows]
    assert told == [
        ["2;3", 8, "eos", "done", 2, 1],
        ["2;3", 8, "eos", "done", 2, 2],
        ["2;3", 7, "length", "out_of_tokens", 2, 2],
        ["12", 3, "eos", "done", 1, 1],
    ]
    assert json.loads(rows[0]["messages"]) == list(MESSAGES)
    assert json.loads(rows[3]["messages"]) == [{"role": "assistant", "content": "12"}]


def test_the_columns_are_those_of_the_recipe_whatever_was_drawn() -> None:
    (row,) = sample_rows([scored(SINGLE)], conversations=True)
    assert list(row) == [*PRESENT, "end", "turns", "samples", "messages"]
    assert (row["end"], row["turns"], row["samples"]) == ("done", 1, 1)


def test_an_end_that_the_finish_does_not_say_is_told() -> None:
    (row,) = sample_rows([scored(replace(SINGLE, end=End.ENVIRONMENT_FAILED))], conversations=True)
    assert (row["finish"], row["end"], row["turns"], row["samples"]) == ("eos", "environment_failed", 1, 1)


def as_data(trajectory: Trajectory) -> Trajectory:
    """What is left of a trajectory that is imitated."""
    samples = tuple(replace(sample, logprobs=(), versions=()) for sample in trajectory.samples)
    return replace(trajectory, samples=samples, draw_id=None, score=None)


def test_every_sample_of_what_is_kept_is_read_again(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    given = [ONE, TWO, cut_off(TWO), SINGLE, replace(SINGLE, end=End.ENVIRONMENT_FAILED)]
    group = scored(*given)
    kept = folder.write_kept([group])
    assert [len(of_one.trajectories) for of_one in kept] == [1] * 5
    assert [of_one.trajectories[0] for of_one in kept] == [as_data(trajectory) for trajectory in given]
    assert {of_one.prompt.token_ids for of_one in kept} == {group.prompt.token_ids}
    assert kept == RunFolder(tmp_path).read_kept()
    # The model's own tokens, not the tool's.
    assert [sum(of_one.trajectories[0].loss_mask) for of_one in kept] == [8, 8, 7, 3, 3]
    assert [of_one.trajectories[0].drawn for of_one in kept] == [t.drawn for t in given] == [8, 8, 7, 3, 3]


def test_a_kept_single_turn_is_written_as_it_was(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    cut = single_turn(PREFIX, (4, 5), "12", finish=Finish.LENGTH, logprobs=(-1.0, -0.5), versions=(0, 0), draw_id=1)
    folder.write_kept([scored(SINGLE, cut)])
    common = {"prompt": "1+1=", "completion": "12", "prompt_id": "p0", "prompt_token_ids": list(PREFIX)}
    assert [json.loads(line) for line in folder.kept.read_text().splitlines()] == [
        {**common, "token_ids": [4, 5, 1], "finish": "eos"},
        {**common, "token_ids": [4, 5], "finish": "length"},
    ]


def test_a_trajectory_is_the_same_after_json() -> None:
    score = Score(0.1, {"r": 0.1, "n": None}, (StepValue(3, 0.1, 1),), retries=2)
    for trajectory in (ONE, TWO, cut_off(ONE), SINGLE, replace(TWO, messages=(), end=End.STALE, score=score)):
        text = json.dumps(trajectory_to_json(trajectory))
        assert trajectory_from_json(json.loads(text)) == trajectory
