"""What a run reads: columns of its data, and models of its rewards."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from sharpen.data.columns import ITEM_COLUMNS
from sharpen.launch.inputs import HeldOut, Inputs
from sharpen.launch.source_rows import SourceRows
from sharpen.recipe.schema import Recipe
from sharpen.rewards.combine import unique_names
from sharpen.rewards.models.model_reward import ScorerReward
from sharpen.rewards.reward import Reward
from sharpen.training.fingerprint import ColumnHashes, column_hashes
from sharpen.types import Reads

_TO_TRAIN_ON: Mapping[Reads, tuple[str, ...]] = {
    "prompts": ("prompt", "messages"),
    "demonstrations": ("prompt", "messages", "completion"),
    "preferences": ("prompt", "chosen", "rejected", "completions", "margin", "scores", "ranks"),
    "steps": ("prompt", "completion", "completions", "steps", "positions", "labels"),
}
_OF_TEMPLATES = ("tools", "functions", "documents", "chat_template_kwargs")


def columns_read(recipe: Recipe, inputs: Inputs) -> dict[str, ColumnHashes]:
    """Hashes of the columns that prompts and completions are made of, and of those that rewards and functions of turns
    read, of the rows to train on, those to measure on, a reward model's demonstrations and the second source's rows, by
    the setting that gives the rows."""
    return {setting: column_hashes(part.rows, columns) for setting, part, columns in _read(recipe, inputs)}


def scorers_read(reward: Reward | None) -> dict[str, str]:
    """The places of the models that a reward reads, by the names of its parts."""
    scorers = [leaf for leaf in reward.leaves() if isinstance(leaf, ScorerReward)] if reward is not None else []
    names = unique_names([scorer.name for scorer in scorers])
    return {name: scorer.scorer.source for name, scorer in zip(names, scorers, strict=True)}


def _read(recipe: Recipe, inputs: Inputs) -> Iterator[tuple[str, SourceRows, tuple[str, ...]]]:
    scored = recipe.method.needs_reward or recipe.method.source().reads == "prompts"
    for part in inputs.train:
        read = _of_completions(recipe, part, inputs.reward) if scored else ()
        trained = _trained(part, recipe.method.source().reads)
        yield _setting(part, "train"), part, tuple(dict.fromkeys((*trained, *read)))
    if inputs.held_out is not None:
        for part in inputs.held_out.parts:
            yield _setting(part, "held_out"), part, _of_held_out(recipe, part, inputs.held_out)
    if inputs.demonstrations is not None:
        yield "data.demonstrations", inputs.demonstrations, _given(inputs.demonstrations)
    mixed = recipe.method.mixed()
    if mixed is not None and inputs.mixed is not None:
        yield "data.mixed", inputs.mixed, _trained(inputs.mixed, mixed.method.source().reads)


def _setting(part: SourceRows, name: str) -> str:
    return f"data.sources.{part.source}.{name}" if part.source else f"data.{name}"


def _of_completions(recipe: Recipe, part: SourceRows, reward: Reward | None) -> tuple[str, ...]:
    """What is read of a row while its prompt is answered and scored."""
    columns = part.rows.columns
    source = recipe.data.sources.get(part.source)
    if recipe.rollout.turns is not None or (source is not None and source.turns is not None):
        # A function of turns is given the whole row.
        return columns
    if reward is None or not reward.scores_source(part.source):
        return ()
    return reward.of_source(part.source).columns_read(columns)


def _of_held_out(recipe: Recipe, part: SourceRows, held_out: HeldOut) -> tuple[str, ...]:
    scored = _of_completions(recipe, part, held_out.reward) if held_out.reads == "prompts" else ()
    return tuple(dict.fromkeys((*_given(part), *scored)))


def _trained(part: SourceRows, reads: Reads) -> tuple[str, ...]:
    return tuple(column for column in (*_TO_TRAIN_ON[reads], *_OF_TEMPLATES) if column in part.rows.columns)


def _given(part: SourceRows) -> tuple[str, ...]:
    return tuple(column for column in ITEM_COLUMNS if column in part.rows.columns)
