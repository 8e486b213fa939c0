"""Conversations of several turns: a scripted engine for the bookkeeping, tiny models for what they draw."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from oracles import sampling as oracle
from scripted_engine import PROMPT, SAID, ScriptedEngine, Turn, appending
from sharpen.data.collate import collate
from sharpen.errors import RecipeError, RewardError
from sharpen.models.forward import MicrobatchLimits, all_outputs
from sharpen.models.policy import Policy
from sharpen.rewards.execution import threads
from sharpen.rewards.function import FunctionReward
from sharpen.rewards.scoring import score_groups
from sharpen.rollout.collector import LocalCollector
from sharpen.rollout.engine import FinishedRequest, Request, Sampling
from sharpen.rollout.generation import Interaction, generate
from sharpen.rollout.interaction import make_interaction
from sharpen.rollout.local.engine import LocalEngine
from sharpen.rollout.sampling import uniforms
from sharpen.rollout.settings import Flow, RolloutSettings
from sharpen.rollout.turns import Reply, Turns
from sharpen.training.metrics import rollout_metrics
from sharpen.types import NOT_DRAWN, End, Finish, Group, Prompt, Sample, Score, Trajectory
from tiny_models import make_prompt, tiny_policy


def converse(
    turns: Turns, *script: Turn, tokens: int = 20, max_turns: int = 4, context: int = 100, flow: Flow = "blocks"
) -> tuple[Trajectory, ScriptedEngine]:
    """The trajectory that the script and the function make, with draw id 7."""
    engine = ScriptedEngine({7: script})
    interaction = Interaction(turns, max_turns, context, flow, vocabulary=10)
    ((trajectory,),) = generate(engine, [PROMPT], [[7]], Sampling(tokens), 3, interaction)
    return trajectory, engine


def drawn_by_script(script: Mapping[int, Sequence[Turn]]) -> tuple[Trajectory, ...]:
    """Trajectories of one turn."""
    ((*trajectories,),) = generate(ScriptedEngine(script), [PROMPT], [list(script)], Sampling(4), 3)
    return tuple(trajectories)


def answering(*answers: Reply | End | Exception) -> Turns:
    """Gives one of the answers after each turn."""
    left = list(answers)

    def turns(prompt: Prompt, trajectory: Trajectory) -> Reply | End:
        answer = left.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    return turns


def rendered_again(*token_ids: int) -> Turns:
    """The prompt and these tokens, without what the policy wrote; then the end."""

    def turns(prompt: Prompt, trajectory: Trajectory) -> Reply | End:
        if len(trajectory.messages) > 1:
            return End.DONE
        return Reply((*prompt.token_ids, *token_ids), (SAID,))

    return turns


FLOWS = pytest.mark.parametrize("flow", ["blocks", "free"])
FIRST, SECOND = ((3, 4), Finish.EOS), ((5,), Finish.STOP)


@FLOWS
def test_a_reply_that_begins_with_all_tokens_so_far_goes_on_with_the_sample(flow: Flow) -> None:
    trajectory, engine = converse(appending(8, 9), FIRST, SECOND, flow=flow)
    sample = Sample(
        (1, 2),
        (3, 4, 8, 9, 5),
        (True, True, False, False, True),
        Finish.STOP,
        (-0.3, -0.4, 0.0, 0.0, -0.5),
        (5, 5, NOT_DRAWN, NOT_DRAWN, 5),
    )
    said = ({"role": "assistant", "content": "34"}, SAID, {"role": "assistant", "content": "5"})
    assert trajectory == Trajectory((sample,), said, End.DONE, draw_id=7)
    assert (trajectory.text, trajectory.drawn) == ("5", 3)
    # The random numbers of the second turn go on after those of the two tokens that were drawn.
    assert engine.requests == [
        Request((1, 2), 7, Sampling(20), 3, offset=0, keep=True),
        Request((1, 2, 3, 4, 8, 9), 7, Sampling(18), 3, offset=2, keep=True),
    ]


@FLOWS
def test_any_other_reply_begins_a_sample(flow: Flow) -> None:
    trajectory, engine = converse(rendered_again(8, 9), FIRST, SECOND, flow=flow)
    assert trajectory.samples == (
        Sample((1, 2), (3, 4), (True, True), Finish.EOS, (-0.3, -0.4), (5, 5)),
        Sample((1, 2, 8, 9), (5,), (True,), Finish.STOP, (-0.5,), (5,)),
    )
    assert (trajectory.token_ids, trajectory.end) == ((3, 4, 5), End.DONE)
    assert engine.requests[1] == Request((1, 2, 8, 9), 7, Sampling(18), 3, offset=2, keep=True)


def test_a_reply_that_changes_a_token_of_the_policy_begins_a_sample() -> None:
    """It is as long as the context, and differs in the last token that was drawn."""
    trajectory, _ = converse(answering(Reply((1, 2, 3, 9)), End.DONE), FIRST, SECOND)
    assert [(s.prefix_ids, s.token_ids) for s in trajectory.samples] == [((1, 2), (3, 4)), ((1, 2, 3, 9), (5,))]


@pytest.mark.parametrize("kind", [list, torch.tensor, np.array])
def test_token_ids_are_ints_whatever_they_come_in(kind: Any) -> None:
    """Tokenizers return lists, which goes on with the sample just as a tuple does."""
    trajectory, _ = converse(answering(Reply(kind([1, 2, 3, 4, 8])), End.DONE), FIRST, SECOND)
    (sample,) = trajectory.samples
    assert (sample.prefix_ids, sample.token_ids) == ((1, 2), (3, 4, 8, 5))
    assert {type(token) for token in sample.token_ids} == {int}


def test_the_limits_of_tokens_are_the_context_that_is_given_and_the_vocabulary() -> None:
    policy = tiny_policy()
    made = make_interaction(RolloutSettings(turns="tiny_turns:answer"), policy, 40)
    assert made is not None
    assert (made.context, made.vocabulary) == (40, policy.config.vocab_size)


def test_a_message_is_as_it_is_read_from_a_file_and_stays_so() -> None:
    said = {"role": "tool", "content": "4", "shape": (2, 3)}

    def turns(prompt: Prompt, trajectory: Trajectory) -> Reply | End:
        said["content"] += "2"
        return Reply((1, 2, 3, 4, 8), (said,)) if len(trajectory.messages) == 1 else End.DONE

    trajectory, _ = converse(turns, FIRST, SECOND)
    assert trajectory.messages[1] == {"role": "tool", "content": "42", "shape": [2, 3]}


def test_a_conversation_may_end_as_out_of_turns() -> None:
    trajectory, _ = converse(answering(End.OUT_OF_TURNS), FIRST)
    assert (trajectory.end, trajectory.score) == (End.OUT_OF_TURNS, None)


def test_the_function_is_shown_the_trajectory_so_far() -> None:
    seen: list[tuple[Prompt, Trajectory]] = []

    def turns(prompt: Prompt, trajectory: Trajectory) -> Reply | End:
        seen.append((prompt, trajectory))
        return appending(8)(prompt, trajectory)

    trajectory, _ = converse(turns, FIRST, SECOND)
    first = Sample((1, 2), (3, 4), (True, True), Finish.EOS, (-0.3, -0.4), (5, 5))
    assert seen == [
        (PROMPT, Trajectory((first,), ({"role": "assistant", "content": "34"},), draw_id=7)),
        (PROMPT, trajectory),
    ]


# Limits


def test_the_limit_of_tokens_is_that_of_the_whole_trajectory() -> None:
    """5 tokens: 2 in the first turn leave 3 for the second. Those of the reply do not count."""
    trajectory, engine = converse(appending(8, 9, 9, 9), FIRST, ((5, 6, 6), Finish.LENGTH), tokens=5)
    assert [request.max_new_tokens for request in engine.requests] == [5, 3]
    assert (trajectory.end, trajectory.drawn, trajectory.truncated) == (End.OUT_OF_TOKENS, 5, True)


def test_a_turn_that_ends_with_the_last_token_is_answered_and_the_trajectory_is_out_of_tokens() -> None:
    trajectory, engine = converse(appending(8), FIRST, tokens=2)
    assert len(engine.requests) == 1
    assert trajectory.end is End.OUT_OF_TOKENS
    assert trajectory.samples == (
        Sample((1, 2), (3, 4, 8), (True, True, False), Finish.EOS, (-0.3, -0.4, 0.0), (5, 5, NOT_DRAWN)),
    )


def test_the_function_is_not_asked_after_a_turn_that_was_cut_off() -> None:
    trajectory, _ = converse(answering(), ((3, 4), Finish.LENGTH), tokens=2)
    assert trajectory.end is End.OUT_OF_TOKENS
    assert trajectory.messages == ({"role": "assistant", "content": "34"},)


def test_a_turn_gets_what_the_context_leaves() -> None:
    """10 tokens of context: the prompt's 2, the policy's 2 and the reply's 3 leave 3."""
    trajectory, engine = converse(appending(8, 8, 8), FIRST, ((5, 6, 6), Finish.LENGTH), context=10)
    assert [request.max_new_tokens for request in engine.requests] == [8, 3]
    assert trajectory.end is End.OUT_OF_TOKENS


@pytest.mark.parametrize("added", [6, 7])
def test_a_reply_that_fills_the_context_ends_the_trajectory(added: int) -> None:
    trajectory, engine = converse(appending(*[8] * added), FIRST, context=10)
    assert len(engine.requests) == 1
    assert trajectory.end is End.OUT_OF_TOKENS
    assert trajectory.loss_mask == (True, True) + (False,) * added


def test_a_new_context_without_room_is_no_sample() -> None:
    trajectory, engine = converse(rendered_again(*[8] * 8), FIRST, context=10)
    assert len(engine.requests) == 1
    assert trajectory.end is End.OUT_OF_TOKENS
    assert [(s.prefix_ids, s.token_ids) for s in trajectory.samples] == [((1, 2), (3, 4))]


@pytest.mark.parametrize(("until", "end"), [(9, End.OUT_OF_TURNS), (2, End.DONE)])
def test_the_function_is_asked_after_the_last_turn_too(until: int, end: End) -> None:
    """It may say that the trajectory has ended; a reply would come too late, and is not appended."""
    trajectory, engine = converse(appending(8, until=until), FIRST, SECOND, max_turns=2)
    assert [request.keep for request in engine.requests] == [True, False]
    assert trajectory.end is end
    assert trajectory.token_ids == (3, 4, 8, 5)
    assert [message["role"] for message in trajectory.messages] == ["assistant", "tool", "assistant"]


# Failures


def added(*token_ids: Any, said: Any = SAID) -> Reply:
    """A reply to the first turn, with a good message and this one."""
    return Reply((1, 2, 3, 4, *token_ids), (SAID, said))


class Unprintable(Exception):
    def __str__(self) -> str:
        raise RuntimeError


@FLOWS
@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (ValueError("no such door"), r"rollout\.turns raised ValueError: no such door \(test_turns.py, line \d+\)"),
        (Unprintable(), r"rollout\.turns raised Unprintable: "),
        (None, r"rollout\.turns returned None, not a Reply or an End$"),
        (End.ENVIRONMENT_FAILED, r"rollout\.turns returned End\.ENVIRONMENT_FAILED$"),
        (End.STALE, r"rollout\.turns returned End\.STALE, not End\.DONE or End\.OUT_OF_TURNS$"),
        (End.OUT_OF_TOKENS, r"rollout\.turns returned End\.OUT_OF_TOKENS, not End\.DONE or End\.OUT_OF_TURNS$"),
        (Reply(()), r"rollout\.turns returned a reply that has no tokens"),
        (added(-1), r"rollout\.turns returned a reply with the token id -1; the model has 10 tokens$"),
        (added(9, 10), r"rollout\.turns returned a reply with the token id 10; the model has 10 tokens$"),
        (added("8"), r"rollout\.turns returned a reply whose token_ids are not all whole numbers: 'str'"),
        (added([8]), r"rollout\.turns returned a reply whose token_ids are not all whole numbers: 'list'"),
        (added(8.0), r"rollout\.turns returned a reply whose token_ids are not all whole numbers: 'float'"),
        (added(8, said="42"), r"rollout\.turns returned a reply whose message 1 is a str, not a mapping$"),
        (added(8, said={"content": "x"}), r"rollout\.turns returned a reply whose message 1 has no text as 'role': "),
        (
            added(8, said={"role": "tool", "content": 42}),
            r"rollout\.turns returned a reply whose message 1 has no text as 'content': ",
        ),
        (
            added(8, said={**SAID, "at": {1, 2}}),
            r"rollout\.turns returned a reply whose message 1 cannot be written as JSON: Object of type set",
        ),
        (
            added(8, said={**SAID, "content": "\ud800"}),
            r"rollout\.turns returned a reply whose message 1 cannot be written as JSON: .*surrogates",
        ),
    ],
)
def test_a_function_that_fails_is_recorded_with_the_trajectory(answer: Any, said: str, flow: Flow) -> None:
    trajectory, engine = converse(answering(answer), FIRST, flow=flow)
    assert trajectory.end is End.ENVIRONMENT_FAILED
    assert [s.token_ids for s in trajectory.samples] == [(3, 4)]
    assert trajectory.score is not None
    assert trajectory.score.total is None
    with pytest.raises(AssertionError, match=f"the environment failed: {said}"):
        raise AssertionError(trajectory.score.error)
    assert 7 in engine.released


def test_a_reply_that_adds_no_tokens_begins_another_sample() -> None:
    trajectory, _ = converse(answering(Reply((1, 2, 3, 4)), End.DONE), FIRST, SECOND)
    assert [(s.prefix_ids, s.token_ids, s.turns) for s in trajectory.samples] == [
        ((1, 2), (3, 4), ((0, 2),)),
        ((1, 2, 3, 4), (5,), ((0, 1),)),
    ]


@FLOWS
def test_a_reply_that_does_not_come_in_time_is_a_failure_and_holds_up_nobody_else(flow: Flow) -> None:
    comes = threading.Event()

    def late_for_the_first(prompt: Prompt, trajectory: Trajectory) -> Reply | End:
        if trajectory.draw_id == 0:
            comes.wait(timeout=30)
        return End.DONE

    engine = ScriptedEngine({0: [((3,), Finish.EOS)], 1: [((4,), Finish.EOS)]})
    interaction = Interaction(late_for_the_first, 2, 100, flow, timeout_s=0.2)
    ((late, other),) = generate(engine, [PROMPT], [[0, 1]], Sampling(4), 3, interaction)
    comes.set()
    assert (late.end, other.end) == (End.ENVIRONMENT_FAILED, End.DONE)
    assert late.score == Score(
        None, error="the environment failed: rollout.turns gave no value within 0.2 s", timed_out=True
    )


def failing_for(draw_ids: Collection[int]) -> Turns:
    def turns(prompt: Prompt, trajectory: Trajectory) -> Reply | End:
        if trajectory.draw_id in draw_ids:
            raise OSError("it is gone")
        return End.DONE

    return turns


def scored(failing: Collection[int], rate: float) -> tuple[list[Group], list[str]]:
    """Two groups of four, whose reward is what the policy wrote; and the completions that it was asked about."""
    asked: list[str] = []

    def written(completion: str) -> float:
        asked.append(completion)
        return float(completion)

    ids = [range(4), range(4, 8)]
    engine = ScriptedEngine({i: [((i,), Finish.EOS)] for group in ids for i in group})
    interaction = Interaction(failing_for(failing), 2, 100)
    drawn = generate(engine, [PROMPT, PROMPT], ids, Sampling(4), 3, interaction)
    groups = [Group(PROMPT, trajectories) for trajectories in drawn]
    return score_groups(FunctionReward(written), groups, max_failure_rate=rate)[0], asked


@pytest.mark.parametrize("failing", [{1}, {1, 6}, {0, 1, 2, 3}, set(range(8))])
def test_a_failed_trajectory_is_masked_and_the_others_keep_their_rewards(failing: set[int]) -> None:
    groups, asked = scored(failing, rate=1.0)
    batch = collate(groups)
    kept = [i not in failing for i in range(8)]
    assert batch.mask_ET.squeeze(1).tolist() == kept
    assert [None if r != r else r for r in batch.rewards_E.tolist()] == [
        float(i) if k else None for i, k in enumerate(kept)
    ]
    assert sorted(asked) == [str(i) for i, k in enumerate(kept) if k]


def test_too_many_failed_environments_stop_the_run() -> None:
    scored({1, 6}, rate=0.25)
    with pytest.raises(
        RewardError,
        match=r"^the environment failed for 2 of 8 .* completion 1 \('1'\): the environment failed: .* it is gone",
    ):
        scored({1, 6}, rate=0.24)


def test_failed_environments_and_rewards_are_counted_apart_and_together() -> None:
    """One environment and one reward of four: together more than 0.4, of which the environment is named first."""
    first, second, third, fourth = (
        replace(t, score=None) for t in drawn_by_script({i: [((i,), Finish.EOS)] for i in range(4)})
    )
    failed = replace(third, end=End.ENVIRONMENT_FAILED, score=Score(None, error="no door"))
    group = Group(PROMPT, (first, second, failed, fourth))

    def fails_for_1(completion: str) -> float:
        if completion == "1":
            raise ValueError("no number")
        return 1.0

    score_groups(FunctionReward(fails_for_1), [group], max_failure_rate=0.5)
    with pytest.raises(
        RewardError,
        match=r"^the environment failed for 1 of 4 completions and the reward failed for 1 of 4 completions, .*"
        r"completion 2 \('2'\): no door",
    ):
        score_groups(FunctionReward(fails_for_1), [group], max_failure_rate=0.4)


@pytest.mark.parametrize("rewarded", [False, True])
def test_failed_environments_stop_a_run_before_and_without_its_reward(rewarded: bool) -> None:
    """Trajectories 1 and 6 of 8 fail. Only the allowed rate lets the reward see what is left."""
    asked: list[int] = []

    def score(groups: Sequence[Group]) -> tuple[list[Group], dict[str, float]]:
        asked.append(len(groups))
        return list(groups), {}

    def collect(rate: float) -> list[Group]:
        collector = LocalCollector(
            prompts=[PROMPT],
            seed=0,
            engine=ScriptedEngine({i: [((i,), Finish.EOS)] for i in range(8)}),
            sampling=Sampling(4),
            interaction=Interaction(failing_for({1, 6}), 2, 100),
            score=score if rewarded else None,
            max_reward_failures=rate,
        )
        return collector.collect([PROMPT] * 2, 4).groups

    with pytest.raises(RewardError, match=r"^the environment failed for 2 of 8 completions"):
        collect(0.24)
    assert asked == []
    groups = collect(0.25)
    assert asked == [2] * rewarded
    found = rollout_metrics(groups, collate(groups), conversations=True)
    assert (found["environment/failed"], found["reward/failed"]) == (0.25, 0.25)


def test_an_engine_that_fails_leaves_nothing_behind() -> None:
    class Failing(ScriptedEngine):
        def next_finished(self, at_least: int = 1) -> list[FinishedRequest]:
            raise RuntimeError("no engine")

    for flow in ("blocks", "free"):
        engine = Failing({})
        with pytest.raises(RuntimeError, match="no engine"):
            generate(engine, [PROMPT], [[7, 8]], Sampling(4), 3, Interaction(appending(8), 2, 100, flow))
        assert engine.cancelled == engine.released == [7, 8]


@pytest.mark.parametrize("flow", [None, "blocks", "free"])
def test_a_request_that_the_engine_loses_is_an_error_that_names_it(flow: Flow | None) -> None:
    class Losing(ScriptedEngine):
        asked = 0

        def add(self, requests: Sequence[Request]) -> None:
            super().add([request for request in requests if request.draw_id != 8])

        def next_finished(self, at_least: int = 1) -> list[FinishedRequest]:
            self.asked += 1
            assert self.asked < 10, "it is asked for ever"
            return super().next_finished(at_least)

    engine = Losing({7: [FIRST]})
    interaction = None if flow is None else Interaction(appending(9, until=1), 2, 100, flow)
    with pytest.raises(RuntimeError, match=r"it has none left, and never finished draw ids \[8\]$"):
        generate(engine, [PROMPT], [[7, 8]], Sampling(4), 3, interaction)
    assert engine.cancelled == [7, 8]


@FLOWS
def test_a_request_that_nobody_made_is_an_error_that_names_it(flow: Flow) -> None:
    class Eager(ScriptedEngine):
        def next_finished(self, at_least: int = 1) -> list[FinishedRequest]:
            return super().next_finished(at_least + 1)

    engine = Eager({7: [FIRST], 9: [FIRST]})
    engine.add([Request((1,), 9, Sampling(4), 3)])
    with pytest.raises(RuntimeError, match=r"it also finished draw ids \[9\]$"):
        generate(engine, [PROMPT], [[7]], Sampling(4), 3, Interaction(appending(9, until=1), 2, 100, flow))


# The order of turns


def test_a_block_is_the_next_turn_of_all_that_go_on() -> None:
    """Draw ids 0 and 3 stop after their first turn. What is answered is answered in the order of draw ids."""
    asked: list[int | None] = []

    def turns(prompt: Prompt, trajectory: Trajectory) -> Reply | End:
        asked.append(trajectory.draw_id)
        return End.DONE if trajectory.draw_id in (0, 3) else appending(9)(prompt, trajectory)

    other = replace(PROMPT, token_ids=(1,))
    engine = ScriptedEngine({i: [((5,), Finish.EOS)] * 2 for i in range(4)})
    drawn = generate(engine, [PROMPT, other], [[0, 1], [2, 3]], Sampling(9), 3, Interaction(turns, 4, 100))
    assert engine.blocks == [[0, 1, 2, 3], [1, 2]]
    assert asked == [0, 1, 2, 3, 1, 2]
    assert [[t.token_ids for t in group] for group in drawn] == [[(5,), (5, 9, 5)], [(5, 9, 5), (5,)]]


class Watched(ScriptedEngine):
    """Says when it has drawn a draw id's first or second turn. The first that was added finishes first."""

    def __init__(self, script: Mapping[int, Sequence[Turn]]) -> None:
        super().__init__(script)
        self.drawn = {(draw_id, turn): threading.Event() for draw_id in script for turn in (1, 2)}

    def next_finished(self, at_least: int = 1) -> list[FinishedRequest]:
        taken, self._unfinished = self._unfinished[:at_least], self._unfinished[at_least:]
        for request in taken:
            self.drawn[request.draw_id, 2 if request.offset else 1].set()
        return [self._finished(request) for request in taken]


def test_in_free_flow_the_engine_draws_while_a_reply_is_awaited() -> None:
    """Draw id 0 is answered only once both turns of draw id 1 are drawn."""
    engine = Watched({i: [((5,), Finish.EOS)] * 2 for i in range(2)})

    class AnswersTwoAtOnce:
        at_once = 2

        def __call__(self, prompt: Prompt, trajectory: Trajectory) -> Reply | End:
            if trajectory.draw_id == 0:
                assert engine.drawn[1, 2].wait(timeout=20)
            return appending(9)(prompt, trajectory)

    interaction = Interaction(AnswersTwoAtOnce(), 4, 100, "free")
    ((first, second),) = generate(engine, [PROMPT], [[0, 1]], Sampling(9), 3, interaction)
    assert [request.draw_id for request in engine.requests] == [0, 1, 1, 0]
    assert (first.end, first.samples, second.end, second.samples) == (End.DONE, second.samples) * 2
    assert set(engine.released) == {0, 1}


def test_in_free_flow_a_plain_function_gets_one_call_at_a_time_while_the_engine_draws() -> None:
    engine = Watched({i: [((5,), Finish.EOS)] for i in range(4)})
    running: list[int] = []

    def turns(prompt: Prompt, trajectory: Trajectory) -> Reply | End:
        running.append(1)
        assert engine.drawn[3, 1].wait(timeout=20)
        assert len(running) == 1
        running.pop()
        return End.DONE

    (drawn,) = generate(engine, [PROMPT], [range(4)], Sampling(9), 3, Interaction(turns, 4, 100, "free"))
    assert [t.end for t in drawn] == [End.DONE] * 4


class Together:
    """Answers only once so many calls wait at the same time."""

    def __init__(self, calls: int) -> None:
        self.at_once = calls
        self._barrier = threading.Barrier(calls)

    def __call__(self, prompt: Prompt, trajectory: Trajectory) -> Reply | End:
        if len(trajectory.messages) > 1:
            return End.DONE
        self._barrier.wait(timeout=20)
        return appending(9)(prompt, trajectory)


def asynchronous(calls: int) -> Turns:
    """The same as a coroutine."""
    waiting: list[int] = []

    async def turns(prompt: Prompt, trajectory: Trajectory) -> Reply | End:
        if len(trajectory.messages) > 1:
            return End.DONE
        waiting.append(1)
        while len(waiting) < calls:
            await asyncio.sleep(0.001)
        return appending(9)(prompt, trajectory)

    return turns


@FLOWS
@pytest.mark.parametrize("turns", [Together(4), asynchronous(4)], ids=["at_once", "async def"])
def test_several_replies_are_awaited_at_once_and_entered_by_draw_id(turns: Turns, flow: Flow) -> None:
    engine = ScriptedEngine({i: [((5,), Finish.EOS), ((i,), Finish.EOS)] for i in range(4)})
    interaction = Interaction(turns, 4, 100, flow, timeout_s=30)
    (drawn,) = generate(engine, [PROMPT], [range(4)], Sampling(9), 3, interaction)
    assert [(t.draw_id, t.end, t.token_ids) for t in drawn] == [(i, End.DONE, (5, 9, i)) for i in range(4)]
    assert flow == "free" or engine.blocks == [[0, 1, 2, 3]] * 2


@FLOWS
def test_a_coroutine_that_takes_too_long_is_cancelled(flow: Flow) -> None:
    cancelled = threading.Event()

    async def turns(prompt: Prompt, trajectory: Trajectory) -> Reply | End:
        if trajectory.draw_id == 1:
            try:
                await asyncio.sleep(30)
            except asyncio.CancelledError:
                cancelled.set()
                raise
        return End.DONE

    engine = ScriptedEngine({i: [((5,), Finish.EOS)] for i in range(2)})
    interaction = Interaction(turns, 2, 100, flow, timeout_s=0.5)
    ((done, late),) = generate(engine, [PROMPT], [[0, 1]], Sampling(4), 3, interaction)
    assert (done.end, late.end) == (End.DONE, End.ENVIRONMENT_FAILED)
    assert cancelled.wait(timeout=20)
    assert late.score is not None
    assert late.score.timed_out


@FLOWS
def test_too_many_replies_that_never_come_stop_the_run(flow: Flow, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "MAX_STUCK", 1)
    monkeypatch.setattr(threads, "_stuck", [])
    comes = threading.Event()

    def never(prompt: Prompt, trajectory: Trajectory) -> Reply | End:
        comes.wait(timeout=30)
        return End.DONE

    engine = ScriptedEngine({i: [((5,), Finish.EOS)] for i in range(4)})
    interaction = Interaction(never, 2, 100, flow, timeout_s=0.05)
    with pytest.raises(
        RewardError, match=r"^2 calls are stuck .* rollout.turns for prompt 'one'.*correct the function"
    ):
        generate(engine, [PROMPT], [range(4)], Sampling(4), 3, interaction)
    comes.set()
    assert engine.cancelled or flow == "blocks"


@pytest.mark.parametrize("at_once", [0, True, 2.0, "4"])
def test_a_wrong_number_of_calls_is_refused_before_the_first_step(
    at_once: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own.py").write_text(f"def turns(prompt, trajectory): ...\nturns.at_once = {at_once!r}\n")
    settings = RolloutSettings(turns=f"{tmp_path / 'own.py'}:turns")
    with pytest.raises(RecipeError, match=r"rollout\.turns: the attribute at_once is .*, not a whole number"):
        make_interaction(settings, tiny_policy(), 128)


# With models

SEED, TEXTS, LIMIT = 11, ("1+2=", "7", "12345+6789="), 16
IDS = [range(10 * i, 10 * i + 5) for i in range(len(TEXTS))]
STOP = tuple("0123")
"""Turns are then of a few tokens."""


def reply_ids(policy: Policy, prompt: Prompt) -> tuple[int, ...]:
    return tuple(policy.tokenizer(f"#{prompt.text[0]};")["input_ids"])


def of_model(kind: str, policy: Policy, prompt: Prompt, trajectory: Trajectory) -> Reply | End:
    """Three turns: appended to, or rendered again from the messages."""
    said = sum(message["role"] == "assistant" for message in trajectory.messages)
    if said == 3:
        return End.DONE
    added, message = reply_ids(policy, prompt), {"role": "tool", "content": f"#{prompt.text[0]};"}
    if kind == "one sample":
        return Reply((*trajectory.last.prefix_ids, *trajectory.last.token_ids, *added), (message,))
    return Reply((*prompt.token_ids, *added * said), (message,))


@dataclass(frozen=True)
class Drawn:
    policy: Policy
    engine: LocalEngine
    prompts: list[Prompt]
    groups: list[tuple[Trajectory, ...]]

    @property
    def trajectories(self) -> list[Trajectory]:
        return [t for group in self.groups for t in group]


@cache
def drawn_by(
    kind: str, flow: Flow = "blocks", *, architecture: str = "llama", exact: bool = True, max_sequences: int = 512
) -> Drawn:
    """Of a tiny model, in float64 if ``exact``."""
    policy = tiny_policy(architecture, dtype=torch.float64 if exact else torch.float32)
    engine = LocalEngine(policy, max_sequences=max_sequences)
    prompts = [make_prompt(policy, text) for text in TEXTS]
    interaction = Interaction(partial(of_model, kind, policy), 5, policy.context_length, flow)
    groups = generate(engine, prompts, IDS, Sampling(LIMIT, stop=STOP), SEED, interaction)
    return Drawn(policy, engine, prompts, groups)


KINDS = pytest.mark.parametrize("kind", ["one sample", "three samples"])
ARCHITECTURES = pytest.mark.parametrize("architecture", ["llama", "gpt2"])


def turn_lengths(trajectory: Trajectory) -> list[int]:
    """The number of tokens that each turn of the policy drew."""
    drawn = "".join(
        "|" + "".join("." if version == NOT_DRAWN else "x" for version in sample.versions)
        for sample in trajectory.samples
    )
    return [len(turn) for turn in drawn.replace("|", ".").split(".") if turn]


@ARCHITECTURES
@KINDS
def test_every_drawn_token_has_the_log_probability_of_a_plain_forward_pass(kind: str, architecture: str) -> None:
    drawn = drawn_by(kind, architecture=architecture, exact=False)
    policy, trajectories = drawn.policy, drawn.trajectories
    assert sum(len(turn_lengths(t)) == 3 for t in trajectories) >= 5
    assert max(len(t.samples) for t in trajectories) == (1 if kind == "one sample" else 3)
    for trajectory in trajectories:
        for sample in trajectory.samples:
            ids = torch.tensor([*sample.prefix_ids, *sample.token_ids])
            with torch.no_grad():
                logits = policy.model(input_ids=ids[None], use_cache=False).logits[0, len(sample.prefix_ids) - 1 : -1]
            own = logits.log_softmax(-1)[torch.arange(len(sample.token_ids)), ids[len(sample.prefix_ids) :]]
            expected = own * torch.tensor(sample.loss_mask)
            torch.testing.assert_close(torch.tensor(sample.logprobs), expected, rtol=0, atol=1e-5)
            # The model's tokens are trained on, the function's are not.
            assert [version == 0 for version in sample.versions] == list(sample.loss_mask)
    batch = collate([Group(p, t) for p, t in zip(drawn.prompts, drawn.groups, strict=True)])
    for limits in (MicrobatchLimits(80, True), MicrobatchLimits(10_000, False)):
        trained_ET = all_outputs(policy, batch, "logprobs", 1.0, limits)
        torch.testing.assert_close(
            trained_ET * batch.mask_ET, batch["rollout_logprobs"] * batch.mask_ET, rtol=0, atol=1e-5
        )


@FLOWS
@KINDS
def test_the_random_numbers_go_on_over_the_turns(kind: str, flow: Flow) -> None:
    """Token t of those that a trajectory drew, over all its turns and samples, is where number t of its stream falls in
    the distribution that a plain forward pass gives."""
    drawn = drawn_by(kind, flow)
    later = 0
    for trajectory in drawn.trajectories:
        assert trajectory.draw_id is not None
        numbers = iter(uniforms(SEED, [trajectory.draw_id], LIMIT)[0].tolist())
        for sample in trajectory.samples:
            ids = [*sample.prefix_ids, *sample.token_ids]
            with torch.no_grad():
                logits = drawn.policy.model(input_ids=torch.tensor([ids]), use_cache=False).logits[0].double()
            for t, (token, version) in enumerate(zip(sample.token_ids, sample.versions, strict=True)):
                if version == NOT_DRAWN:
                    continue
                low, high = oracle.interval(oracle.softmax(logits[len(sample.prefix_ids) + t - 1].tolist()), token)
                assert low - 1e-9 <= next(numbers) <= high + 1e-9
        later += sum(turn_lengths(trajectory)[1:])
    assert later > 40


@KINDS
@pytest.mark.parametrize("max_sequences", [4, 512])
def test_free_flow_draws_the_tokens_of_blocks(kind: str, max_sequences: int) -> None:
    blocks, free = drawn_by(kind), drawn_by(kind, "free", max_sequences=max_sequences)
    for one, other in zip(blocks.trajectories, free.trajectories, strict=True):
        assert (one.draw_id, one.messages, one.end) == (other.draw_id, other.messages, other.end)
        for a, b in zip(one.samples, other.samples, strict=True):
            assert replace(a, logprobs=()) == replace(b, logprobs=())
            assert a.logprobs == pytest.approx(b.logprobs, abs=1e-9)


def expected_work(drawn: Drawn, *, keeps: bool) -> tuple[int, int]:
    """Tokens of contexts that were computed and reused: a group's prompt is computed once.

    A later turn reuses what its context has in common with the one before and all but the last of the tokens drawn
    after it, whose keys and values were never computed; and never the last token of the context, whose logits it needs.
    Without kept conversations the whole context is computed, once for those of a prompt that have the same one.
    """
    computed = reused = 0
    for prompt, group in zip(drawn.prompts, drawn.groups, strict=True):
        computed += len(prompt.token_ids)
        by_turn: dict[int, list[tuple[tuple[int, ...], tuple[int, ...]]]] = {}
        for trajectory in group:
            before: tuple[int, ...] = ()
            for number, (context, tokens) in enumerate(turns_of(trajectory)):
                if number:
                    by_turn.setdefault(number, []).append((before, context))
                before = (*context, *tokens[:-1])
        for asked in by_turn.values():
            if not keeps:
                computed += sum(len(context) for context in {context for _, context in asked})
                continue
            for kept, context in asked:
                same = 0
                while same < min(len(kept), len(context) - 1) and kept[same] == context[same]:
                    same += 1
                computed, reused = computed + len(context) - same, reused + same
    return computed, reused


def turns_of(trajectory: Trajectory) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    """The context of each turn, and the tokens that it drew."""
    turns: list[tuple[tuple[int, ...], tuple[int, ...]]] = []
    for sample in trajectory.samples:
        drawn: list[int] = []
        for t, (token, version) in enumerate(zip(sample.token_ids, sample.versions, strict=True)):
            if version != NOT_DRAWN:
                drawn.append(token)
            if drawn and (version == NOT_DRAWN or t == len(sample.token_ids) - 1):
                end = t + (version != NOT_DRAWN)
                turns.append(((*sample.prefix_ids, *sample.token_ids[: end - len(drawn)]), tuple(drawn)))
                drawn = []
    return turns


@FLOWS
@KINDS
def test_a_context_is_computed_once(kind: str, flow: Flow) -> None:
    drawn = drawn_by(kind, flow)
    counted, kept = drawn.engine.counters, drawn.engine._kept
    assert (counted.prefill_tokens, counted.reused_tokens) == expected_work(drawn, keeps=True)
    # Computed again, these would be most of the work, or some of it where a reply leaves out what the policy wrote.
    assert counted.reused_tokens > (1.5 if kind == "one sample" else 0.5) * counted.prefill_tokens
    assert (counted.evictions, counted.preemptions) == (0, 0)
    # No conversation is kept once all have ended.
    assert (len(kept), kept.slots) == (0, 0)


def test_an_architecture_that_keeps_no_conversations_computes_each_context_again() -> None:
    drawn = drawn_by("one sample", architecture="gpt2", exact=False)
    counted = drawn.engine.counters
    assert (counted.prefill_tokens, counted.reused_tokens) == expected_work(drawn, keeps=False)


def test_without_a_function_a_trajectory_has_one_turn_and_keeps_nothing() -> None:
    policy = tiny_policy()
    prompts = [make_prompt(policy, text) for text in TEXTS]
    ended_at_once: Callable[[Prompt, Trajectory], End] = lambda prompt, trajectory: End.DONE  # noqa: E731
    interaction = Interaction(ended_at_once, 1, policy.context_length)
    alone, asked = (
        generate(LocalEngine(policy), prompts, IDS, Sampling(LIMIT), SEED, given) for given in (None, interaction)
    )
    assert alone == asked
    assert {len(t.messages) for group in alone for t in group} == {1}
