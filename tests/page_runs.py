"""Runs on disk as training leaves them, of any size and with any text, without training them."""

from __future__ import annotations

import base64
import gzip
import json
import random
from collections.abc import Callable, Mapping, Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from histories import USUAL
from sharpen.runs.folder import RunFolder

WORDS = [word for word in dir(random) if word.isalpha()]


def text_of(seed: int, chars: int) -> str:
    """Prose of a model that calculates: words and numbers, of about this length."""
    drawn = random.Random(seed)
    parts: list[str] = []
    length = 0
    while length < chars:
        parts.append(drawn.choice(WORDS) if drawn.random() < 0.75 else f"{drawn.randint(1, 9999)}")
        length += len(parts[-1]) + 1
    return " ".join(parts)[:chars]


def run_on_disk(
    path: Path,
    metrics: Sequence[Mapping[str, float]] = (),
    samples: Mapping[int, Sequence[Mapping[str, Any]]] | None = None,
    held_out: Mapping[int, Sequence[Mapping[str, Any]]] | None = None,
    *,
    recipe: Mapping[str, Any] | None = None,
) -> Path:
    """The folder of a run with these rows of ``metrics.jsonl``, and these samples by their steps."""
    folder = RunFolder(path)
    tree = {
        "run": str(path),
        "seed": 0,
        "model": {"path": "models/tiny", "lora": None},
        "method": {"name": "grpo", "group_size": 4},
        "data": {"task": "arithmetic"},
        "reward": ["task"],
        "rollout": {"max_new_tokens": 40},
        "training": {"steps": int(metrics[-1]["step"]) if metrics else 1},
        "checkpoint": {"best": None},
        **(recipe or {}),
    }
    folder.initialise(yaml.safe_dump(tree))
    folder.metrics.write_text("".join(f"{json.dumps(row)}\n" for row in metrics))
    for files, by_step in ((folder.sample_files, samples or {}), (folder.held_out_files, held_out or {})):
        for step, rows in by_step.items():
            files.write(step, [{"step": step, **row} for row in rows])
    return path


def row(prompt: str = "1+1=", completion: str = "2", reward: float | None = 1.0, **more: Any) -> dict[str, Any]:
    return {
        "prompt_id": prompt,
        "prompt": prompt,
        "completion": completion,
        "reward": reward,
        "error": None,
        "tokens": max(1, len(completion)),
        "finish": "stop",
        "draw_id": 0,
        "policy_version": 0,
        **more,
    }


def tokens(texts: Sequence[str], seed: int = 0) -> dict[str, Any]:
    """The list columns of one completion with all streams; float32, as training writes them."""
    drawn = np.random.default_rng(seed)
    streams = ("coefficient", "weight", "advantage", "ratio", "logprob", "old_logprob", "rollout_logprob", "entropy")
    values = {name: [float(x) for x in drawn.normal(size=len(texts)).astype(np.float32)] for name in streams}
    return {
        "token_ids": list(range(len(texts))),
        "token_texts": list(texts),
        "loss_mask": [True] * len(texts),
        "clipped": [False] * len(texts),
        **values,
    }


def large_run(
    path: Path,
    *,
    steps: int,
    groups: int,
    group_size: int,
    chars: int = 1_500,
    prompt_chars: int = 500,
    tokens_every: int = 0,
    text: Callable[[int, int], str] = text_of,
) -> Path:
    """A run of ``steps`` × ``groups`` × ``group_size`` completions of ``chars`` characters, each its own."""

    def rows(step: int) -> list[dict[str, Any]]:
        found = []
        for group in range(groups):
            prompt = text(1_000_000 + (step * groups + group) % 500, prompt_chars)
            for member in range(group_size):
                number = (step * groups + group) * group_size + member
                completion = text(number, chars)
                extra = tokens(completion.split(), number) if tokens_every and step % tokens_every == 0 else {}
                found.append(row(prompt, completion, float(number % 3 == 0), draw_id=number, **extra))
        return found

    metrics = [
        {
            "step": step,
            **({"held_out/pass@1": step / steps, "held_out/reward": step / steps} if step % 10 == 0 else {}),
            **{f"of/metric_{name}": random.Random(step * 100 + name).random() for name in range(40)},
            **USUAL,
            "time/step_s": 1.0,
        }
        for step in range(steps + 1)
    ]
    return run_on_disk(path, metrics, {step: rows(step) for step in range(1, steps + 1)})


class Page(HTMLParser):
    """A report as a browser takes it apart: its tags, its scripts and styles with their texts, and what they hold."""

    def __init__(self, file: Path) -> None:
        super().__init__(convert_charrefs=True)
        self.text = file.read_text(encoding="utf-8")
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.contents: list[tuple[str, dict[str, str | None], str]] = []
        """Of each element: its name, its attributes, and the text up to the next tag."""
        self._open = False
        self.feed(self.text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self.contents.append((tag, dict(attrs), ""))
        self._open = True

    def handle_endtag(self, tag: str) -> None:
        self._open = False

    def handle_data(self, data: str) -> None:
        if self._open:
            tag, attributes, before = self.contents.pop()
            self.contents.append((tag, attributes, before + data))

    @property
    def data(self) -> dict[str, Any]:
        [text] = [text for _, attributes, text in self.contents if attributes.get("id") == "page-data"]
        found: dict[str, Any] = json.loads(text)
        return found

    def chunks(self, run: int = 0) -> dict[str, Any]:
        """The chunks of one of the runs by their names."""
        identity = self.data["runs"][run]["id"]
        return {
            str(attributes["data-chunk"]): json.loads(gzip.decompress(base64.b64decode(text)))
            for _, attributes, text in self.contents
            if attributes.get("data-run") == identity
        }
