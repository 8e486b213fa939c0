"""What a recipe's data becomes: its first rows as the model will see them, its lengths, and what looks wrong."""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

from transformers import PreTrainedTokenizerBase

from sharpen.data.chat import TurnEnd
from sharpen.data.large import is_large
from sharpen.data.prompt_format import PromptFormat
from sharpen.data.prompts import load_prompts
from sharpen.data.rows import Rows
from sharpen.errors import SharpenError
from sharpen.launch.data_doubts import Doubts, Reading, ReadRow, Shared
from sharpen.launch.data_report import CheckedRows, DataReport, ShownRow, ShownSample, TokenCounts
from sharpen.launch.inputs import Inputs, read_inputs
from sharpen.launch.source_rows import Say, SourceRows, completions_of
from sharpen.launch.spans import spans
from sharpen.launch.without_weights import UnloadedModel, unloaded_model
from sharpen.models.shape import UNLIMITED
from sharpen.recipe.schema import Recipe
from sharpen.rewards.reward import Reward
from sharpen.types import Group, Reads, Sample, Trajectory

MOST_ERRORS = 20
"""Rows that cannot be read are counted, and this many of them named."""
READ_AT_ONCE = 10_000


@dataclass(frozen=True, slots=True)
class _Part:
    use: str
    source: SourceRows
    reads: Reads
    reward: Reward | None = None


def check_data(recipe: Recipe, *, show: int = 3, trust_remote_code: bool = False) -> DataReport:
    """Read all rows of a recipe as its run would, with the model's tokenizer and without its weights.

    Raises:
        SharpenError: the recipe, a file or the tokenizer cannot be used; rows that cannot be read are in the report.
    """
    inputs = read_inputs(recipe, each_row=False)
    model = unloaded_model(recipe, trust_remote_code=trust_remote_code)
    parts: list[CheckedRows] = []
    shared = Shared()
    for part in _parts(recipe, inputs):
        limit = recipe.rollout.max_new_tokens if part.reads == "prompts" else 0
        parts.append(_checked(part, model, limit, show, shared))
    return DataReport(recipe.model.path, model.context_length, tuple(parts))


def _parts(recipe: Recipe, inputs: Inputs) -> Iterator[_Part]:
    reads = recipe.method.source().reads
    for part in inputs.train:
        reward = None if inputs.reward is None or reads != "prompts" else inputs.reward.of_source(part.source)
        yield _Part("trained on", part, reads, reward)
    mixed = recipe.method.mixed()
    if inputs.mixed is not None and mixed is not None:
        yield _Part("trained on, second source", inputs.mixed, mixed.method.source().reads)
    if inputs.demonstrations is not None:
        yield _Part("for the mean of the scores", inputs.demonstrations, "demonstrations")
    if inputs.held_out is not None:
        for part in inputs.held_out.parts:
            reward = None if inputs.held_out.reward is None else inputs.held_out.reward.of_source(part.source)
            yield _Part("held out", part, inputs.held_out.reads, reward)


def _checked(part: _Part, model: UnloadedModel, max_new_tokens: int, show: int, shared: Shared) -> CheckedRows:
    rows, said = part.source.rows, list[str]()
    reader = _Reader(part, model, max_new_tokens, said.append)
    found, together = _Found(), ""
    chat = reader.format.chat or any(_is_conversation(value) for value in rows[0].values())
    doubts: Doubts | None = None
    for some in _in_parts(rows, reader):
        read, error = _read(some, reader, found)
        together = together or error
        if doubts is None:
            # What ends turns is known once a row was read.
            doubts = Doubts(Reading(part.reads, chat, model.tokenizer, frozenset(reader.ends), part.reward))
        doubts.look_at(read)
        shared.measure(read) if part.use == "held out" else shared.train(read)
        found.count(read)
        found.shown += [_shown(row, model.tokenizer) for row in read[: show - len(found.shown)]]
    if not found.prompts and found.dropped == len(rows) and not together:
        together = f"{rows.name}: none of the {len(rows)} rows fits into {model.context_length} tokens"
    errors = [
        f"{first}; {alike - 1} more rows are like it" if alike > 1 else first for first, alike in found.errors.values()
    ]
    if not errors and together:
        errors, found.unread = [together], 1
    return CheckedRows(
        name=rows.name,
        use=part.use,
        rows=len(rows),
        prompts=TokenCounts.of(found.prompts),
        completions=TokenCounts.of(found.completions),
        trained=TokenCounts.of(found.trained),
        split=found.split,
        dropped=found.dropped,
        notes=rows.notes,
        shown=tuple(found.shown),
        doubts=(
            *dict.fromkeys(said),
            *(doubts.lines() if doubts is not None and found.prompts else ()),
            *(shared.lines() if part.use == "held out" else ()),
        ),
        errors=tuple(errors),
        unread=found.unread,
    )


@dataclass(slots=True)
class _Found:
    """What is kept of the rows that were read: lengths in tokens, and the first errors, each with the number of rows
    like it."""

    prompts: array[int] = field(default_factory=lambda: array("q"))
    completions: array[int] = field(default_factory=lambda: array("q"))
    trained: array[int] = field(default_factory=lambda: array("q"))
    split: int = 0
    dropped: int = 0
    unread: int = 0
    errors: dict[str, tuple[str, int]] = field(default_factory=dict)
    shown: list[ShownRow] = field(default_factory=list)

    def count(self, read: Sequence[ReadRow]) -> None:
        self.prompts.extend(len(row.group.prompt.token_ids) for row in read)
        trajectories = [t for row in read for t in row.group.trajectories]
        self.completions.extend(len(t.token_ids) for t in trajectories)
        self.trained.extend(sum(t.loss_mask) for t in trajectories)
        self.split += sum(len(t.samples) > 1 for t in trajectories)

    def refuse(self, error: str, where: str) -> None:
        self.unread += 1
        kind = error.replace(where, "")
        first, alike = self.errors.get(kind, (error, 0))
        if alike or len(self.errors) < MOST_ERRORS:
            self.errors[kind] = (first, alike + 1)


def _in_parts(rows: Rows, reader: _Reader) -> Iterator[Rows]:
    """The rows, very many in parts of thousands."""
    if not is_large(len(rows)):
        yield rows
        return
    # Only for what a run says of them at its start; what is wrong with a row is found below.
    with suppress(SharpenError):
        reader.rows(reader.part.source.read_first)
    reader.format = replace(reader.format, on_plain=None, alone=True)
    for start in range(0, len(rows), READ_AT_ONCE):
        yield rows.part(range(start, min(start + READ_AT_ONCE, len(rows))))


def _read(rows: Rows, reader: _Reader, found: _Found) -> tuple[list[ReadRow], str]:
    """The rows that can be read, and the error that they give together."""
    try:
        read = reader.rows(rows)
    except SharpenError as error:
        # The first row that cannot be read ends a run; here all of them are looked for, one by one.
        read = []
        for index, row in enumerate(rows.part([i]) for i in range(len(rows))):
            try:
                read += reader.rows(row)
            except SharpenError as of_row:
                if reader.leaves_out(row):
                    found.dropped += 1
                    continue
                found.refuse(str(of_row), rows.where(index))
        return read, str(error)
    found.dropped += len(rows) - len(read)
    return read, ""


class _Reader:
    """Reads rows of a part as the run does; ``say`` is told what the run would say of them."""

    def __init__(self, part: _Part, model: UnloadedModel, max_new_tokens: int, say: Say) -> None:
        self.part, self.say, self.max_new_tokens = part, say, max_new_tokens
        self.ends = {*model.eos_ids}
        self.format = PromptFormat.of(
            part.source.data,
            model.tokenizer,
            model.context_length,
            eos_ids=model.eos_ids,
            on_chat=self._learn,
            embedding_rows=model.embedding_rows,
            on_plain=say,
        )

    def _learn(self, end: TurnEnd) -> None:
        self.ends |= end.token_ids
        if end.warning is not None:
            self.say(end.warning)

    def rows(self, rows: Rows) -> list[ReadRow]:
        """Raises SharpenError for the first row at which the run would stop."""
        if self.part.reward is not None:
            for index, row in enumerate(rows):
                self.part.reward.check_row(row, rows.where(index))
        places = {rows.row_id(index): rows.where(index) for index in range(len(rows))}
        return [ReadRow(places[group.prompt.id], group) for group in self._groups(rows, self.format)]

    def leaves_out(self, row: Rows) -> bool:
        """Whether the run would leave out this row, which cannot be read, because it is too long."""
        if self.format.overlong != "drop":
            return False
        try:
            self._groups(row, replace(self.format, context_length=UNLIMITED))
        except SharpenError:
            return False
        return True

    def _groups(self, rows: Rows, format: PromptFormat) -> Sequence[Group]:
        if self.part.reads == "prompts":
            loaded = load_prompts(rows, format, max_new_tokens=self.max_new_tokens)
            if loaded.warning is not None:
                self.say(loaded.warning)
            return [Group(prompt, ()) for prompt in loaded.items]
        loaded_groups = completions_of(self.part.reads, rows, format, self.part.source.data.step_separator)
        if loaded_groups.warning is not None:
            self.say(loaded_groups.warning)
        return loaded_groups.items


def _shown(row: ReadRow, tokenizer: PreTrainedTokenizerBase) -> ShownRow:
    completions = tuple(
        (None if t.score is None else t.score.total, tuple(_samples(t, tokenizer))) for t in row.group.trajectories
    )
    return ShownRow(row.where, spans(tokenizer, row.group.prompt.token_ids), completions)


def _samples(trajectory: Trajectory, tokenizer: PreTrainedTokenizerBase) -> Iterator[ShownSample]:
    def shown(sample: Sample) -> ShownSample:
        completion = spans(tokenizer, sample.token_ids, sample.loss_mask, before=sample.prefix_ids)
        return ShownSample(spans(tokenizer, sample.prefix_ids), completion, sum(sample.loss_mask))

    return map(shown, trajectory.samples)


def _is_conversation(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and isinstance(value[0], Mapping)
