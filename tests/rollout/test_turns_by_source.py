"""Conversations of several data sources: each source's function answers its own, and those without one end at once."""

from __future__ import annotations

import threading
from dataclasses import replace

import pytest

from scripted_engine import PROMPT, ScriptedEngine, appending
from sharpen.rollout.engine import Sampling
from sharpen.rollout.generation import Interaction, Interactions, generate
from sharpen.rollout.settings import Flow
from sharpen.rollout.turns import Reply
from sharpen.types import End, Finish, Prompt, Trajectory

FLOWS: tuple[Flow, ...] = ("blocks", "free")
PROMPTS = [replace(PROMPT, id=source, token_ids=(1, i), source=source) for i, source in enumerate("abc")]


def drawn(of: Interactions, turns: int = 3) -> tuple[list[Trajectory], ScriptedEngine]:
    """The trajectory of each prompt, whose turns are the tokens 5, 6, 7."""
    engine = ScriptedEngine({i: [((5 + turn,), Finish.EOS) for turn in range(turns)] for i in range(3)})
    return [t for (t,) in generate(engine, PROMPTS, [[0], [1], [2]], Sampling(9), 3, of)], engine


@pytest.mark.parametrize("flow", FLOWS)
def test_each_source_has_its_function_its_limit_or_a_single_turn(flow: Flow) -> None:
    trajectories, engine = drawn(
        {"a": Interaction(appending(8), 4, 100, flow), "c": Interaction(appending(9, until=9), 3, 100, flow)}
    )
    assert [t.token_ids for t in trajectories] == [(5, 8, 6), (5,), (5, 9, 6, 9, 7)]
    assert [t.end for t in trajectories] == [End.DONE, End.DONE, End.OUT_OF_TURNS]
    # The engine keeps a context only where another turn may follow: not of b, nor in c's third turn.
    kept = {(request.draw_id, request.offset): request.keep for request in engine.requests}
    assert kept == {(0, 0): True, (0, 1): True, (1, 0): False, (2, 0): True, (2, 1): True, (2, 2): False}
    assert set(engine.released) == {0, 1, 2}


@pytest.mark.parametrize("flow", FLOWS)
def test_without_a_function_for_any_of_them_all_have_a_single_turn(flow: Flow) -> None:
    trajectories, engine = drawn({"other": Interaction(appending(8), 4, 100, flow)})
    assert [(t.token_ids, t.end) for t in trajectories] == [((5,), End.DONE)] * 3
    assert len(engine.requests) == 3


@pytest.mark.parametrize("flow", FLOWS)
def test_one_function_for_all_answers_every_source(flow: Flow) -> None:
    trajectories, _ = drawn(Interaction(appending(8), 4, 100, flow))
    assert [t.token_ids for t in trajectories] == [(5, 8, 6)] * 3


@pytest.mark.parametrize("flow", FLOWS)
def test_functions_of_different_sources_are_called_concurrently(flow: Flow) -> None:
    both = threading.Barrier(2, timeout=20)

    def first(prompt: Prompt, trajectory: Trajectory) -> Reply | End:
        both.wait()
        return End.DONE

    def second(prompt: Prompt, trajectory: Trajectory) -> Reply | End:
        both.wait()
        return End.OUT_OF_TURNS

    trajectories, _ = drawn({"a": Interaction(first, 4, 100, flow), "b": Interaction(second, 4, 100, flow)})
    assert [t.end for t in trajectories] == [End.DONE, End.OUT_OF_TURNS, End.DONE]


@pytest.mark.parametrize("flow", FLOWS)
def test_a_function_of_two_sources_is_called_once_at_a_time(flow: Flow) -> None:
    running: list[int] = []
    pause = threading.Event()

    def turns(prompt: Prompt, trajectory: Trajectory) -> Reply | End:
        running.append(1)
        pause.wait(0.05)
        assert len(running) == 1
        running.pop()
        return End.DONE

    trajectories, _ = drawn({"a": Interaction(turns, 4, 100, flow), "b": Interaction(turns, 2, 100, flow)})
    assert [t.score for t in trajectories] == [None] * 3


@pytest.mark.parametrize("flow", FLOWS)
def test_a_function_that_fails_fails_its_source_alone_and_is_named(flow: Flow) -> None:
    def gone(prompt: Prompt, trajectory: Trajectory) -> Reply | End:
        raise OSError("it is gone")

    def nothing(prompt: Prompt, trajectory: Trajectory) -> Reply | End:
        return None  # type: ignore[return-value]

    trajectories, _ = drawn(
        {
            "a": Interaction(appending(8), 4, 100, flow),
            "b": Interaction(gone, 4, 100, flow, setting="data.sources.b.turns"),
            "c": Interaction(nothing, 4, 100, flow, setting="data.sources.c.turns"),
        }
    )
    assert [t.end for t in trajectories] == [End.DONE, End.ENVIRONMENT_FAILED, End.ENVIRONMENT_FAILED]
    of_b, of_c = [str(t.score and t.score.error) for t in trajectories[1:]]
    assert of_b.startswith("the environment failed: data.sources.b.turns raised OSError: it is gone")
    assert of_c == "the environment failed: data.sources.c.turns returned None, not a Reply or an End"


@pytest.mark.parametrize("flow", FLOWS)
def test_each_source_has_its_time_limit(flow: Flow) -> None:
    never = threading.Event()

    def slow(prompt: Prompt, trajectory: Trajectory) -> Reply | End:
        never.wait(0.4)
        return End.DONE

    def slower(prompt: Prompt, trajectory: Trajectory) -> Reply | End:
        never.wait(0.4)
        return End.DONE

    trajectories, _ = drawn(
        {"a": Interaction(slow, 4, 100, flow, timeout_s=0.1), "b": Interaction(slower, 4, 100, flow, timeout_s=30)}
    )
    assert [t.end for t in trajectories] == [End.ENVIRONMENT_FAILED, End.DONE, End.DONE]
