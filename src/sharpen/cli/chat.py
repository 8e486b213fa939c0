"""``sharpen chat``: a conversation in the terminal."""

from __future__ import annotations

import secrets
import sys

from rich.console import Console
from rich.text import Text

from sharpen.data.settings import DataSettings
from sharpen.errors import DataError
from sharpen.models.dtype import AskedDtype
from sharpen.models.policy import load_policy
from sharpen.models.settings import ModelSettings
from sharpen.recipe.loading import load_section
from sharpen.report.table import printable
from sharpen.rollout.chat import Conversation
from sharpen.rollout.engine import Sampling
from sharpen.rollout.settings import RolloutSettings
from sharpen.runs.lookup import find_model
from sharpen.types import Finish

QUIT, RESET = "/quit", "/reset"


def talk(
    model: str,
    *,
    temperature: float,
    top_p: float,
    max_new_tokens: int | None,
    system: str | None,
    seed: int | None,
    dtype: AskedDtype | None,
    trust_remote_code: bool,
) -> None:
    """Answer each input line until the input ends. Only the answers go to standard output.

    Options that are None come from the model's run, if it has one.
    """
    answers, notes = Console(highlight=False), Console(stderr=True, highlight=False, style="dim")
    named = find_model(model)
    rollout, chat_template_kwargs = RolloutSettings(), {}
    if named.run is not None:
        rollout, data = load_section(named.run.recipe, RolloutSettings), load_section(named.run.recipe, DataSettings)
        system = data.system if system is None else system
        dtype = dtype or load_section(named.run.recipe, ModelSettings).compute_dtype
        chat_template_kwargs = data.chat_template_kwargs
    for note in named.notes:
        notes.print(note, markup=False, soft_wrap=True)
    conversation = Conversation(
        load_policy(named.path, compute_dtype=dtype or "float32", trust_remote_code=trust_remote_code),
        Sampling(max_new_tokens or rollout.max_new_tokens, temperature, top_p=top_p, stop=rollout.stop),
        system,
        secrets.randbits(32) if seed is None else seed,
        chat_template_kwargs,
        engine_settings=rollout.engine,
    )
    if conversation.remembers:
        notes.print(f"{RESET} starts a new conversation, {QUIT} ends")
    else:
        notes.print(f"this model has no chat template: it completes what is typed. {QUIT} ends")
    while (line := _next_line()) is not None and line.strip() != QUIT:
        if line.strip() == RESET:
            conversation.reset()
            notes.print("started a new conversation")
            continue
        if not line.strip():
            continue
        try:
            completion = conversation.reply(line)
        except DataError as error:
            notes.print(f"{error}: {RESET} starts a new conversation", markup=False)
            continue
        answers.print(Text(printable(completion.text.strip())), soft_wrap=True)
        if completion.finish is Finish.LENGTH:
            notes.print(f"(cut off after {len(completion.token_ids)} tokens)")


def _next_line() -> str | None:
    prompt = "> " if sys.stdin.isatty() else ""
    try:
        return input(prompt)
    except EOFError:
        return None
