"""What is known of a recipe's model without its weights."""

from __future__ import annotations

from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from sharpen.data.chat.template import use_template
from sharpen.models.adapter_files import AdapterFiles, find_adapter
from sharpen.models.chat_template import take_template
from sharpen.models.ends import end_of_sequence_ids, require_end, saved_ends, saved_generation_config
from sharpen.models.load import load_config, load_tokenizer, located
from sharpen.models.shape import context_length
from sharpen.recipe.schema import Recipe
from sharpen.runs.lookup import find_model


@dataclass(frozen=True, slots=True)
class UnloadedModel:
    """The tokenizer with the recipe's chat template, the context in tokens, the ends of sequence, and the number of
    token ids that the model can read."""

    tokenizer: PreTrainedTokenizerBase
    context_length: int
    eos_ids: frozenset[int]
    embedding_rows: int


def tokenizer_of(recipe: Recipe, *, trust_remote_code: bool) -> PreTrainedTokenizerBase:
    """The tokenizer of a recipe's model, with the recipe's chat template."""
    path, adapter = _place(recipe)
    base = path if adapter is None else adapter.base
    tokenizer: PreTrainedTokenizerBase = load_tokenizer(base, trust_remote_code=trust_remote_code)
    take_template(tokenizer, adapter)
    use_template(tokenizer, recipe.data.chat_template)
    return tokenizer


def unloaded_model(recipe: Recipe, *, trust_remote_code: bool) -> UnloadedModel:
    """Raises ModelError if there is no such model, or no configuration of it."""
    path, adapter = _place(recipe)
    base = path if adapter is None else adapter.base
    tokenizer = tokenizer_of(recipe, trust_remote_code=trust_remote_code)
    config = load_config(base, trust_remote_code=trust_remote_code)
    eos_ids = end_of_sequence_ids(saved_generation_config(base), config, tokenizer) | saved_ends(path)
    if recipe.method.makes_a_policy:
        require_end(path, eos_ids)
    rows = int(config.get_text_config().vocab_size)
    return UnloadedModel(tokenizer, context_length(config, tokenizer), eos_ids, rows)


def _place(recipe: Recipe) -> tuple[str, AdapterFiles | None]:
    """The folder or hub id of a recipe's model, and its files if it is an adapter."""
    path = located(find_model(recipe.model.path, "configuration").path)
    return path, find_adapter(path)
