"""Trajectories from an engine: in blocks of requests, or each conversation as fast as it goes."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from sharpen.rollout.answers import Answering, Answers, answer_all
from sharpen.rollout.engine import Engine, FinishedRequest, Request, Sampling
from sharpen.rollout.settings import Flow
from sharpen.rollout.turns import Conversation, TurnLimits, Turns
from sharpen.system.user_code import undisturbed
from sharpen.types import End, Prompt, Trajectory

QUICK_REPLY_S = 0.005
"""How long the engine waits for a reply before it draws further turns."""


@dataclass(frozen=True, slots=True)
class Interaction:
    """How conversations of several turns go: who answers, for how many turns, and in which order.

    In ``blocks`` the next turns of all conversations are drawn together, and answered in the order of their draw ids.
    What is computed together then follows from the recipe alone, so that a resumed run draws the same bits. In ``free``
    flow the engine draws on while replies are awaited, and they join what it draws as they come; a token then depends
    on how fast they come where rounding decides it. ``context`` is the model's, in tokens; ``timeout_s`` is the time
    limit of a reply, and ``vocabulary`` the number of the model's tokens, None if it is not known. ``setting`` is what
    messages call ``turns``.
    """

    turns: Turns
    max_turns: int
    context: int
    flow: Flow = "blocks"
    timeout_s: float = 60.0
    vocabulary: int | None = None
    setting: str = "rollout.turns"

    @property
    def answers(self) -> Answers:
        return Answers(self.turns, self.timeout_s, self.vocabulary, self.setting)


Interactions: TypeAlias = Interaction | Mapping[str, Interaction] | None
"""Of all conversations, or of those of each data source by its name; without one, trajectories have a single turn. All
of a run have the same flow and context."""


def _interaction(of: Interactions, prompt: Prompt) -> Interaction | None:
    return of.get(prompt.source) if isinstance(of, Mapping) else of


def run_block(engine: Engine, groups: Sequence[Sequence[Request]]) -> list[list[FinishedRequest]]:
    """The finished requests of each group, in the order of the requests. A group's common context is computed once.

    The block follows from its requests alone, rounding included, provided that nothing else is in the engine. If it
    fails, its requests are cancelled. Raises `RuntimeError` if the engine loses one, or finishes another.
    """
    draw_ids = [request.draw_id for group in groups for request in group]
    unfinished = set(draw_ids)
    finished: dict[int, FinishedRequest] = {}
    try:
        for group in groups:
            engine.add(group)
        while unfinished:
            for done in _next_finished(engine, unfinished, at_least=len(unfinished)):
                finished[done.request.draw_id] = done
    except BaseException:
        engine.cancel(draw_ids)
        raise
    return [[finished[request.draw_id] for request in group] for group in groups]


def _next_finished(engine: Engine, unfinished: set[int], at_least: int = 1) -> list[FinishedRequest]:
    """The next finished requests, whose draw ids are taken out of ``unfinished``, all those that the engine has."""
    finished = engine.next_finished(at_least)
    if not finished:
        raise RuntimeError(f"the engine has lost requests: it has none left, and never finished {_listed(unfinished)}")
    for done in finished:
        if done.request.draw_id not in unfinished:
            also = _listed([done.request.draw_id])
            raise RuntimeError(f"a rollout needs the engine for itself; it also finished {also}")
        unfinished.remove(done.request.draw_id)
    return finished


def _listed(draw_ids: Collection[int], at_most: int = 20) -> str:
    more = f" and {len(draw_ids) - at_most} more" if len(draw_ids) > at_most else ""
    return f"draw ids {sorted(draw_ids)[:at_most]}{more}"


def generate(
    engine: Engine,
    prompts: Sequence[Prompt],
    draw_ids: Sequence[Sequence[int]],
    sampling: Sampling,
    seed: int,
    interaction: Interactions = None,
) -> list[tuple[Trajectory, ...]]:
    """A trajectory of prompt i for each id in ``draw_ids[i]``: of one turn, or as the interaction goes on.

    Its random numbers depend on (seed, id) alone. ``sampling.max_new_tokens`` is the limit of a whole trajectory.
    """
    groups = [
        [Conversation(prompt, draw_id, _limits(sampling, _interaction(interaction, prompt))) for draw_id in ids]
        for prompt, ids in zip(prompts, draw_ids, strict=True)
    ]
    try:
        if _flow(interaction) == "free":
            _run_freely(engine, groups, sampling, seed, interaction)
        else:
            _run_in_blocks(engine, groups, sampling, seed, interaction)
    finally:
        if interaction:
            engine.release([draw_id for ids in draw_ids for draw_id in ids])
    return [tuple(conversation.trajectory() for conversation in group) for group in groups]


def _limits(sampling: Sampling, interaction: Interaction | None) -> TurnLimits:
    if interaction is None:
        return TurnLimits(sampling.max_new_tokens)
    return TurnLimits(sampling.max_new_tokens, interaction.max_turns, interaction.context)


def _flow(interactions: Interactions) -> Flow:
    if isinstance(interactions, Mapping):
        interactions = next(iter(interactions.values()), None)
    return "blocks" if interactions is None else interactions.flow


def _run_in_blocks(
    engine: Engine,
    groups: Sequence[Sequence[Conversation]],
    sampling: Sampling,
    seed: int,
    interaction: Interactions,
) -> None:
    going_on = list(groups)
    while going_on:
        block = run_block(engine, [[c.request(sampling, seed) for c in group] for group in going_on])
        for group, finished in zip(going_on, block, strict=True):
            for conversation, turn in zip(group, finished, strict=True):
                conversation.take(turn)
        _answer([c for group in going_on for c in group], interaction)
        if interaction:
            engine.release([c.draw_id for group in going_on for c in group if c.end is not None])
        open_groups = ([c for c in group if c.end is None] for group in going_on)
        going_on = [group for group in open_groups if group]


def _run_freely(
    engine: Engine, groups: Sequence[Sequence[Conversation]], sampling: Sampling, seed: int, interaction: Interactions
) -> None:
    by_draw_id = {c.draw_id: c for group in groups for c in group}
    unfinished = set(by_draw_id)

    def answers(conversation: Conversation) -> Answers:
        found = _interaction(interaction, conversation.prompt)
        assert found is not None
        return found.answers

    answering = Answering(answers)

    def release(conversations: Iterable[Conversation]) -> None:
        engine.release([c.draw_id for c in conversations if c.end is not None])

    try:
        for group in groups:
            engine.add([c.request(sampling, seed) for c in group])
        with undisturbed():
            while unfinished or answering:
                if unfinished:
                    finished = _next_finished(engine, unfinished)
                    for turn in finished:
                        by_draw_id[turn.request.draw_id].take(turn)
                    drawn = [by_draw_id[turn.request.draw_id] for turn in finished]
                    _end_single_turns(drawn, interaction)
                    release(drawn)
                    for conversation in drawn:
                        if conversation.end is None:
                            answering.add(conversation)
                # While the engine has work, only quick replies are waited for.
                answered = answering.take(within_s=QUICK_REPLY_S if unfinished else None)
                release(answered)
                going_on = [c for c in answered if c.end is None]
                for conversation in going_on:
                    engine.add([conversation.request(sampling, seed)])
                unfinished |= {c.draw_id for c in going_on}
    except BaseException:
        engine.cancel(list(by_draw_id))
        raise
    finally:
        answering.stop()


def _answer(conversations: Sequence[Conversation], interaction: Interactions) -> None:
    """Let the conversations whose turn has been drawn go on or end."""
    _end_single_turns(conversations, interaction)
    asked: dict[int, tuple[Answers, list[Conversation]]] = {}
    for conversation in conversations:
        found = _interaction(interaction, conversation.prompt)
        if conversation.end is None and found is not None:
            asked.setdefault(id(found), (found.answers, []))[1].append(conversation)
    if asked:
        answer_all(list(asked.values()))


def _end_single_turns(conversations: Iterable[Conversation], interaction: Interactions) -> None:
    for conversation in conversations:
        if conversation.end is None and _interaction(interaction, conversation.prompt) is None:
            conversation.go_on(End.DONE)
