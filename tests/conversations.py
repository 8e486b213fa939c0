"""A hand-made trajectory of two turns with a tool between them, as one sample and as two."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from transformers import PreTrainedTokenizerBase

from sharpen.types import NOT_DRAWN, End, Finish, Group, Message, Prompt, Sample, Trajectory

MESSAGES: tuple[Message, ...] = (
    {"role": "assistant", "content": "1+1"},
    {"role": "tool", "content": "=2"},
    {"role": "assistant", "content": "2;3"},
)


def ids_of(tokenizer: PreTrainedTokenizerBase, text: str, *, ended: bool = True) -> tuple[int, ...]:
    """A character is a token; a turn ends with the end of the sequence."""
    end = (tokenizer.eos_token_id,) if ended else ()
    return (*tokenizer(text)["input_ids"], *end)


def in_one_sample(tokenizer: PreTrainedTokenizerBase, prompt: str = "1+1=") -> Trajectory:
    """``1+1.`` at 0 to 3, the tool's ``=2`` at 4 and 5, ``2;3.`` at 6 to 9; the dot is the end of the sequence."""
    first, tool, second = ids_of(tokenizer, "1+1"), ids_of(tokenizer, "=2", ended=False), ids_of(tokenizer, "2;3")
    drawn = (True,) * len(first) + (False,) * len(tool) + (True,) * len(second)
    sample = Sample(
        prefix_ids=ids_of(tokenizer, prompt, ended=False),
        token_ids=(*first, *tool, *second),
        loss_mask=drawn,
        logprobs=tuple(-0.1 * (t + 1) if is_drawn else 0.0 for t, is_drawn in enumerate(drawn)),
        versions=tuple(3 if is_drawn else NOT_DRAWN for is_drawn in drawn),
    )
    return Trajectory((sample,), MESSAGES, draw_id=7)


def in_two_samples(tokenizer: PreTrainedTokenizerBase, prompt: str = "1+1=") -> Trajectory:
    """The same with the tool's reply in a prefix of its own, which says the prompt in other tokens."""
    first, second = ids_of(tokenizer, "1+1"), ids_of(tokenizer, "2;3")
    samples = (
        Sample(ids_of(tokenizer, prompt, ended=False), first, (True,) * 4, logprobs=(-0.5,) * 4, versions=(3,) * 4),
        Sample(ids_of(tokenizer, "#=2", ended=False), second, (True,) * 4, logprobs=(-0.5,) * 4, versions=(4,) * 4),
    )
    return Trajectory(samples, MESSAGES, draw_id=8)


def cut_off(trajectory: Trajectory) -> Trajectory:
    """Without its last token, which the limit did not leave room for."""
    last = trajectory.last
    shorter = replace(
        last,
        token_ids=last.token_ids[:-1],
        loss_mask=last.loss_mask[:-1],
        logprobs=last.logprobs[:-1],
        versions=last.versions[:-1],
        finish=Finish.LENGTH,
    )
    return replace(trajectory, samples=(*trajectory.samples[:-1], shorter), end=End.OUT_OF_TOKENS)


def group_of(tokenizer: PreTrainedTokenizerBase, *trajectories: Trajectory, **row: Any) -> Group:
    prompt = Prompt("p0", ids_of(tokenizer, "1+1=", ended=False), "1+1=", row)
    return Group(prompt, trajectories)
