"""What answers the tiny models of `tiny_runs` between their turns. Recipes name it as ``tiny_turns:answer``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sharpen.data.tasks.arithmetic import ALPHABET
from sharpen.models.character_model import character_tokenizer
from sharpen.rollout.turns import Reply
from sharpen.types import End, Prompt, Trajectory

TOKENIZER = character_tokenizer(ALPHABET, context=32)
TURNS: dict[str, Any] = {"turns": "tiny_turns:answer", "max_turns": 3, "stop": list("0123456789")}
"""Settings of a rollout. An untrained model then writes turns of a few tokens."""

before_answers: list[Callable[[], None]] = []
"""Called before each answer."""


def answer(prompt: Prompt, trajectory: Trajectory) -> Reply | End:
    """After an even digit the conversation goes on, after an odd one it is rendered again without what was written."""
    for call in before_answers:
        call()
    if len(trajectory.messages) > 3 or not trajectory.text[-1:].isdigit():
        return End.DONE
    text = f"#{trajectory.text[-1]}"
    added, message = TOKENIZER(text)["input_ids"], {"role": "tool", "content": text}
    if int(trajectory.text[-1]) % 2:
        return Reply((*prompt.token_ids, *added), (message,))
    return Reply((*trajectory.last.prefix_ids, *trajectory.last.token_ids, *added), (message,))


def failing_now_and_then(prompt: Prompt, trajectory: Trajectory) -> Reply | End:
    assert trajectory.draw_id is not None
    if trajectory.draw_id % 4 == 1:
        raise OSError("no connection")
    return answer(prompt, trajectory)
