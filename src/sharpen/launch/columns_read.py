"""Which columns of its data a run reads beside the prompts and completions that it trains on."""

from __future__ import annotations

from collections.abc import Iterator

from sharpen.data.columns import ITEM_COLUMNS
from sharpen.launch.inputs import HeldOut, Inputs
from sharpen.launch.source_rows import SourceRows
from sharpen.recipe.schema import Recipe
from sharpen.rewards.reward import Reward
from sharpen.training.fingerprint import ColumnHashes, column_hashes


def columns_read(recipe: Recipe, inputs: Inputs) -> dict[str, ColumnHashes]:
    """Hashes of the columns that rewards and functions of turns read of the rows to train on, and of all that is read
    of the rows to measure on and of a reward model's demonstrations, by the setting that gives the rows.

    The tokens of the rows to train on have a hash of their own.
    """
    found = {}
    for setting, part, columns in _read(recipe, inputs):
        if columns:
            found[setting] = ColumnHashes(part.rows.name, column_hashes(part.rows, columns))
    return found


def _read(recipe: Recipe, inputs: Inputs) -> Iterator[tuple[str, SourceRows, tuple[str, ...]]]:
    scored = recipe.method.needs_reward or recipe.method.source().reads == "prompts"
    for part in inputs.train:
        yield _setting(part, "train"), part, _of_completions(recipe, part, inputs.reward) if scored else ()
    if inputs.held_out is not None:
        for part in inputs.held_out.parts:
            yield _setting(part, "held_out"), part, _of_held_out(recipe, part, inputs.held_out)
    if inputs.demonstrations is not None:
        yield "data.demonstrations", inputs.demonstrations, _given(inputs.demonstrations)


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


def _given(part: SourceRows) -> tuple[str, ...]:
    return tuple(column for column in ITEM_COLUMNS if column in part.rows.columns)
