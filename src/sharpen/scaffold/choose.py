"""Findings about data, model and machine → what the recipe is to do."""

from __future__ import annotations

from dataclasses import dataclass

from sharpen.scaffold.findings import Findings, Kind
from sharpen.scaffold.lengths import Lengths, measure, said
from sharpen.scaffold.machine import Machine
from sharpen.scaffold.model_facts import ModelFacts
from sharpen.scaffold.part import Part, part_of
from sharpen.scaffold.rewards import BOXED, RewardChoice, choose_reward
from sharpen.scaffold.sizes import needs_lora, room_for_completions, with_margin
from sharpen.scaffold.source import Source
from sharpen.types import Reads

METHODS: dict[Kind, str] = {
    "answers": "grpo",
    "words": "grpo",
    "tests": "grpo",
    "task": "grpo",
    "prompts": "grpo",
    "demonstrations": "sft",
    "preferences": "dpo",
    "marked steps": "process_reward_model",
}
READS: dict[str, Reads] = {
    "grpo": "prompts",
    "sft": "demonstrations",
    "dpo": "preferences",
    "process_reward_model": "steps",
}


@dataclass(frozen=True, slots=True)
class Completions:
    """How long completions may be, why, and what is unsure about that."""

    max_new_tokens: int
    why: str
    unsure: str | None = None


@dataclass(frozen=True, slots=True)
class Choices:
    """What a recipe is to do, and on what.

    ``chat`` makes plain prompts users' messages. ``completions`` is None if the method samples none. ``too_long`` rows
    of ``looked_at`` do not fit into the context. ``model_given`` is False if nobody chose the model.
    """

    source: Source
    findings: Findings
    model: ModelFacts
    machine: Machine
    method: str
    chat: bool
    reward: RewardChoice | None
    system: str | None
    completions: Completions | None
    too_long: int
    looked_at: int
    model_given: bool = True

    @property
    def samples(self) -> bool:
        return READS[self.method] == "prompts"

    @property
    def in_chat(self) -> bool:
        return self.chat or self.findings.conversational

    @property
    def lora(self) -> bool:
        parameters = self.model.parameters
        return parameters is not None and needs_lora(self.method, parameters, self.machine)


def choose(source: Source, findings: Findings, model: ModelFacts, machine: Machine) -> Choices:
    """What to do with these rows.

    Raises:
        DataError: a run could not read a row.
    """
    method = METHODS[findings.kind]
    chat = model.chat and not findings.conversational
    part = part_of(source.rows)
    reward = choose_reward(findings, chat=chat or findings.conversational)
    system = reward.system if reward is not None and (chat or findings.conversational) else None
    if system == BOXED and any("boxed" in str(row[findings.asked or "prompt"]) for row in part.rows):
        system = None
    lengths = sum(
        (
            measure(
                part_of(rows).rows,
                READS[method],
                model,
                chat=chat,
                system=system,
                step_separator=findings.step_separator,
            )
            for rows in (source.rows, source.held_out_rows)
            if rows is not None
        ),
        Lengths((), ()),
    )
    completions = None
    if READS[method] != "prompts":
        too_long = 0 if model.context is None else sum(total > model.context for total in lengths.totals)
    else:
        wanted = _completions(source, findings, model, machine, part, in_chat=chat or findings.conversational)
        room = room_for_completions(wanted.max_new_tokens, lengths.prompts, model.context)
        completions, too_long = wanted, room.too_long
        if room.max_new_tokens < wanted.max_new_tokens:
            why = f"what the context of {model.context} tokens leaves; {wanted.max_new_tokens} would be better"
            completions = Completions(room.max_new_tokens, why, wanted.unsure)
    return Choices(
        source, findings, model, machine, method, chat, reward, system, completions, too_long, len(lengths.prompts)
    )


def _completions(
    source: Source, findings: Findings, model: ModelFacts, machine: Machine, part: Part, *, in_chat: bool
) -> Completions:
    if source.task is not None:
        texts = [source.task.reference(row) or "" for row in part.rows]
        return Completions(with_margin(model.tokens(texts), 3, 24), "three times the longest reference")
    if findings.shown is not None:
        longest = model.tokens([said(value) for value in part.values(findings.shown)])
        why = f"half as much again as the longest `{findings.shown}`, {max(longest)} tokens"
        return Completions(with_margin(longest, 1.5, 32), why)
    if findings.answers is not None and (findings.answers.form == "short text" or not in_chat):
        answers = model.tokens([str(value) for value in part.values(findings.answers.column)])
        return Completions(with_margin(answers, 2, 16), f"twice the longest answer, {max(answers)} tokens")
    if findings.words is not None:
        words = model.tokens([said(value) for value in part.values(findings.words)])
        usual = with_margin(words, 3, 48)
    else:
        usual = 512 if machine.gpu or findings.kind == "tests" else 256
    return Completions(
        usual, "", "the rows do not show how long a completion is: watch `truncated` in the metrics and raise this"
    )
