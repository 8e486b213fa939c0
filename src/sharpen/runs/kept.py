"""``kept.jsonl``: the completions that a run sampled once and trains on from then on, as demonstrations."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from sharpen.runs.trajectories import trajectory_from_json, trajectory_to_json
from sharpen.system.files import named_write_errors, write_text
from sharpen.types import Finish, Group, Prompt, Trajectory, single_turn


def write_kept(path: Path, groups: Sequence[Group]) -> None:
    """They become data: scores, draw ids, log-probabilities and versions are not kept."""
    lines = [_kept_line(group.prompt, trajectory) for group in groups for trajectory in group.trajectories]
    with named_write_errors(path, "the completions to train on"):
        write_text(path, "".join(json.dumps(line) + "\n" for line in lines))


def read_kept(path: Path) -> tuple[Group, ...]:
    with path.open(encoding="utf-8") as file:
        return tuple(_kept_group(json.loads(line)) for line in file)


def _kept_line(prompt: Prompt, trajectory: Trajectory) -> dict[str, Any]:
    """A single turn is told by its tokens, anything else by its field ``trajectory``."""
    line = {
        **({"source": prompt.source} if prompt.source else {}),
        "prompt": prompt.text,
        "completion": trajectory.text,
        "prompt_id": prompt.id,
        "prompt_token_ids": prompt.token_ids,
    }
    samples = tuple(replace(sample, logprobs=(), versions=()) for sample in trajectory.samples)
    data = replace(trajectory, samples=samples, draw_id=None, score=None)
    if data == single_turn(prompt.token_ids, data.token_ids, data.text, finish=data.last.finish):
        return {**line, "token_ids": data.token_ids, "finish": data.last.finish.value}
    return {**line, "trajectory": trajectory_to_json(data)}


def _kept_group(line: Mapping[str, Any]) -> Group:
    ids, row = tuple(line["prompt_token_ids"]), {"prompt": line["prompt"]}
    prompt = Prompt(line["prompt_id"], ids, line["prompt"], row, source=line.get("source", ""))
    if "trajectory" in line:
        return Group(prompt, (trajectory_from_json(line["trajectory"]),))
    ids, finish = tuple(line["token_ids"]), Finish(line["finish"])
    return Group(prompt, (single_turn(prompt.token_ids, ids, line["completion"], finish=finish),))
