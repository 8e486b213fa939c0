"""What a run renders its conversations with and must record: another day, or a changed file, would render others."""

from __future__ import annotations

from datetime import date

from transformers import PreTrainedTokenizerBase

from sharpen.data.chat.dates import writes_date
from sharpen.data.chat.template import template_text
from sharpen.errors import RecipeError
from sharpen.recipe.schema import Recipe
from sharpen.rewards.models.model_reward import ScorerReward
from sharpen.rewards.reward import Reward


def recorded(recipe: Recipe, tokenizer: PreTrainedTokenizerBase, reward: Reward | None, day: date) -> Recipe:
    """The recipe as it is saved: with the text of its chat template, and with the day of the start if that is written.

    ``tokenizer`` is the policy's, with the recipe's template.

    Raises RecipeError for a date that no template writes.
    """
    scorers = [leaf for leaf in reward.leaves() if isinstance(leaf, ScorerReward)] if reward is not None else []
    own = [scorer.own_chat.tokenizer for scorer in scorers if scorer.own_chat is not None]
    data = recipe.data
    if any(writes_date(one) for one in (tokenizer, *own)):
        data = data.model_copy(update={"date": day})
    elif data.date is not None:
        raise RecipeError("no effect of `data.date`: the chat template does not write today's date (`strftime_now`)")
    if data.chat_template is not None and (text := template_text(data.chat_template)) is not None:
        data = data.model_copy(update={"chat_template": text})
    return recipe.model_copy(update={"data": data})
