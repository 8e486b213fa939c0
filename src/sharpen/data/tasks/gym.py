"""Tasks of the optional package reasoning-gym.

Its scorers run in worker processes with a time and memory limit: an answer such as ``1e999999999`` or ten million moves
makes some of them hang. `sharpen.data.tasks.gym_checks` corrects those that accept wrong answers or execute answers.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, get_type_hints

from pydantic import TypeAdapter, ValidationError

from sharpen.data.rows import Rows
from sharpen.data.tasks.gym_checks import DECIDED, EXACT, GUARDED, executes_answers
from sharpen.data.tasks.task import PromptsOnly, is_held_out, task_rows
from sharpen.errors import RecipeError
from sharpen.suggest import did_you_mean
from sharpen.system.workers import Exhausted, WorkerPool
from sharpen.types import Refused, Row

HELD_OUT_SHARE = 0.2
OUR_PARAMETERS = {"train_size": 1000, "held_out_size": 200, "seed": 0}

_MOST_CHUNKS = 20

SCORE_TIMEOUT_S = 10.0
"""Time limit for scoring one answer, in seconds of processor time."""
FULL_SCORE = 1 - 1e-6

_workers = WorkerPool(Path(__file__).with_name("gym_worker.py"))


class GymTask(PromptsOnly):
    """A task of reasoning-gym.

    Problems are generated starting from ``seed``, without duplicates. Whether a problem is held out depends only on its
    text, so the two splits are disjoint for every seed and size. The reward is the task's own ``score_answer``, from 0
    to 1, corrected by `sharpen.data.tasks.gym_checks`; many tasks give partial credit to a right answer wrapped in more
    text. An answer that the scorer cannot parse scores 0.

    Raises RecipeError if the scorer executes answers and there is no check for it.
    """

    def __init__(
        self, name: str, kind: type, settings: type, parameters: Mapping[str, Any], sizes: Mapping[str, int]
    ) -> None:
        self.name = name
        self._kind, self._settings, self._parameters = kind, settings, parameters
        self._train_size, self._held_out_size = sizes["train_size"], sizes["held_out_size"]
        self._seed = sizes["seed"]
        self._dataset(seed=self._seed, size=1)
        if executes_answers(kind) and not {*GUARDED, *DECIDED} & {name.rpartition(":")[2]}:
            raise RecipeError(
                f"{name}: its scorer executes the model's answers, and sharpen has no check for them, so this task "
                "cannot be used"
            )

    def train_rows(self) -> Rows:
        return self._parts[0]

    def held_out_rows(self) -> Rows:
        return self._parts[1]

    def verify(self, completion: str, *, prompt: str, answer: Any, metadata: Mapping[str, Any], **_: Any) -> float:
        """The score of the completion's answer.

        `Refused` if the scorer takes longer than `SCORE_TIMEOUT_S`. Raises ValueError if it raises for the reference
        answer too.
        """
        given = self.answer(completion)
        if given is None:
            return 0.0
        entry = {"question": prompt, "answer": answer, "metadata": metadata}
        # In a composite task each entry names the task it comes from.
        source = metadata.get("source_dataset", self.name.rpartition(":")[2])
        if source in DECIDED:
            return float(DECIDED[source](given, entry))
        if source in GUARDED and not GUARDED[source](given):
            return float(given == answer)
        try:
            score = self._scored(given, entry)
        except Exhausted as error:
            return Refused(str(error), timed_out=error.timed_out)
        if not math.isfinite(score) or (score >= FULL_SCORE and source in EXACT and not EXACT[source](given, entry)):
            return 0.0
        return min(max(score, 0.0), 1.0)

    def _scored(self, given: str, entry: Mapping[str, Any]) -> float:
        question = {
            "module": self._kind.__module__,
            "kind": self._kind.__qualname__,
            "settings_kind": [self._settings.__module__, self._settings.__qualname__],
            "parameters": plain(self._parameters),
            "answer": given,
            "entry": plain(entry),
        }
        reply = _workers.judge(question, SCORE_TIMEOUT_S)
        if reply.get("own_raised"):
            raise ValueError(f"{self.name}: the scorer also raises for the row's reference answer: {reply['raised']}")
        return float(reply.get("score", 0.0))

    def answer(self, completion: str) -> str | None:
        """The content of the last ``<answer>`` tags, or the whole completion if there are none."""
        tagged = _last_tagged(completion)
        return (completion if tagged is None else tagged).strip() or None

    def reference(self, row: Row) -> str | None:
        """The task's reference answer; some tasks have none."""
        return None if row["answer"] is None else str(row["answer"])

    @cached_property
    def _parts(self) -> tuple[Rows, Rows]:
        train: dict[str, dict[str, Any]] = {}
        held_out: dict[str, dict[str, Any]] = {}
        size = self._train_size + self._held_out_size
        for chunk in range(_MOST_CHUNKS):
            # Problem i of a dataset uses seed + i, so nearby seeds would overlap.
            for entry in self._dataset(seed=self._seed + chunk * size, size=size):
                question = entry["question"]
                part = held_out if is_held_out(question, HELD_OUT_SHARE) else train
                part[question] = {
                    "prompt": question,
                    "answer": entry["answer"],
                    "metadata": entry["metadata"],
                }
            if len(train) >= self._train_size and len(held_out) >= self._held_out_size:
                return (
                    task_rows(self.name, "train", list(train.values())[: self._train_size]),
                    task_rows(self.name, "held out", list(held_out.values())[: self._held_out_size]),
                )
        raise RecipeError(
            f"{self.name}: {_MOST_CHUNKS * size} generated problems contain only {len(train)} distinct training "
            f"problems and {len(held_out)} held-out ones; lower train_size ({self._train_size}) and held_out_size "
            f"({self._held_out_size}), or choose parameters with more distinct problems"
        )

    def _dataset(self, *, seed: int, size: int) -> Any:
        return self._kind(self._settings(**self._parameters, seed=seed, size=size))


def _last_tagged(text: str) -> str | None:
    """The content of the last ``<answer>…</answer>``; a pair starts at the first opening after the previous one."""
    last, position = None, 0
    while (start := text.find("<answer>", position)) >= 0:
        start += len("<answer>")
        end = text.find("</answer>", start)
        if end < 0:
            break
        last, position = text[start:end], end + len("</answer>")
    return last


def plain(value: Any) -> Any:
    """A task's value in a form that survives JSON: tuples are tagged, and mappings become lists of pairs.

    Raises TypeError for any other type.
    """
    if isinstance(value, Mapping):
        return {"dict": [[plain(key), plain(item)] for key, item in value.items()]}
    if isinstance(value, tuple):
        return {"tuple": [plain(item) for item in value]}
    if isinstance(value, list):
        return [plain(item) for item in value]
    if hasattr(value, "item") and getattr(value, "ndim", None) == 0:
        return value.item()
    if value is None or isinstance(value, (str, int, float, bool)):
        return value
    raise TypeError(f"cannot send a {type(value).__name__} to the scoring process: {value!r}")


def gym_task(name: str, parameters: Mapping[str, str], spec: str) -> GymTask:
    """The reasoning-gym task ``name``.

    Its parameters are the fields of its configuration, written as JSON (``ops=["+","-"]``; quotes around strings are
    optional), plus ``train_size``, ``held_out_size`` and ``seed``. If the configuration has ``min_terms`` and
    ``max_terms``, ``terms`` or ``num_terms`` sets both.

    Raises RecipeError if the package is missing, for an unknown name or parameter, and for an invalid value.
    """
    try:
        from reasoning_gym.factory import DATASETS
    except ModuleNotFoundError as error:
        raise RecipeError(
            f'{spec}: this task needs the package {error.name}; install it with: pip install "sharpen[tasks]"'
        ) from error
    if name not in DATASETS:
        raise RecipeError(
            f"{spec}: reasoning-gym has no task {name!r}.{did_you_mean(name, DATASETS)} "
            f"Some of its {len(DATASETS)} tasks: {', '.join(sorted(DATASETS)[:8])}"
        )
    kind, settings = DATASETS[name]
    sizes = dict(OUR_PARAMETERS)
    given: dict[str, Any] = {}
    types = get_type_hints(settings)
    fields = [field.name for field in dataclasses.fields(settings) if field.name not in ("seed", "size")]
    for key, text in parameters.items():
        if key in sizes:
            sizes[key] = _parse(spec, key, text, int)
            if sizes[key] < (key != "seed"):
                raise RecipeError(f"{spec}: {key} must be {'0' if key == 'seed' else '1'} or more, not {text}")
            continue
        for field in _matching_fields(key, fields, spec):
            given[field] = _parse(spec, key, text, types[field])
    try:
        return GymTask(f"reasoning_gym:{name}", kind, settings, given, sizes)
    except (AssertionError, ValueError) as error:
        raise RecipeError(f"{spec}: {error}") from error


def _matching_fields(key: str, fields: list[str], spec: str) -> list[str]:
    if key in fields:
        return [key]
    quantity = key.removeprefix("num_")
    ends = [f"min_{quantity}", f"max_{quantity}"]
    if set(ends) <= set(fields):
        return ends
    known = [*fields, *OUR_PARAMETERS]
    raise RecipeError(f"{spec}: unknown parameter {key!r}.{did_you_mean(key, known)} Known: {', '.join(known)}")


def _parse(spec: str, key: str, text: str, type_: Any) -> Any:
    try:
        value = json.loads(text)
    except json.JSONDecodeError:
        value = text
    try:
        return TypeAdapter(type_).validate_python(value)
    except ValidationError as error:
        raise RecipeError(f"{spec}: {key}={text}: {error.errors()[0]['msg']}") from error
