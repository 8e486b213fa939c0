"""``sharpen chat``: a conversation in the terminal."""

from __future__ import annotations

import secrets
import sys
from collections.abc import Mapping
from typing import Any

from sharpen.data.chat.template import template_text, use_template
from sharpen.data.settings import DataSettings
from sharpen.errors import DataError, RecipeError
from sharpen.models.dtype import AskedDtype
from sharpen.models.policy import load_policy
from sharpen.models.settings import ModelSettings
from sharpen.recipe.loading import load_section
from sharpen.report.console import printable_text, safe_console
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
    chat_template: str | None,
    chat_template_kwargs: Any,
    seed: int | None,
    dtype: AskedDtype | None,
    trust_remote_code: bool,
) -> None:
    """Answer each input line until the input ends. Only the answers go to standard output.

    Options that are None come from the model's run, if it has one.
    """
    answers, notes = safe_console(highlight=False), safe_console(stderr=True, highlight=False, style="dim")
    named = find_model(model)
    # Without its check that there are rows: only the defaults of its other settings are wanted.
    rollout, data = RolloutSettings(), DataSettings.model_construct()
    if named.run is not None:
        rollout, data = load_section(named.run.recipe, RolloutSettings), load_section(named.run.recipe, DataSettings)
        system = data.system if system is None else system
        dtype = dtype or load_section(named.run.recipe, ModelSettings).compute_dtype
    if chat_template_kwargs is None:
        chat_template_kwargs = data.chat_template_kwargs
    elif not isinstance(chat_template_kwargs, Mapping):
        raise RecipeError(f"--chat-template-kwargs must be a mapping such as '{{a: b}}', not {chat_template_kwargs!r}")
    for note in named.notes:
        notes.print(note, soft_wrap=True)
    given, setting = (data.chat_template, "data.chat_template")
    if chat_template is not None:
        given, setting = chat_template, "--chat-template"
    if given is not None:
        template_text(given, setting)
    policy = load_policy(named.path, compute_dtype=dtype or "float32", trust_remote_code=trust_remote_code)
    use_template(policy.tokenizer, given, setting)
    conversation = Conversation(
        policy,
        Sampling(max_new_tokens or rollout.max_new_tokens, temperature, top_p=top_p, stop=rollout.stop),
        system,
        secrets.randbits(32) if seed is None else seed,
        chat_template_kwargs,
        date=data.date,
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
            notes.print(f"{error}: {RESET} starts a new conversation")
            continue
        answers.print(printable_text(completion.text.strip()), soft_wrap=True)
        if completion.finish is Finish.LENGTH:
            notes.print(f"(cut off after {len(completion.token_ids)} tokens)")


def _next_line() -> str | None:
    prompt = "> " if sys.stdin.isatty() else ""
    try:
        return input(prompt)
    except EOFError:
        return None
