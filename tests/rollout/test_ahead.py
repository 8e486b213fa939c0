"""The order of a GPU, where a token is fed back before the host has looked who ended, run on the CPU."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import pytest
import torch

from sharpen.rollout import grid_past
from sharpen.rollout.drawing import Drawing
from sharpen.rollout.engine import Sampling
from sharpen.rollout.local import LocalEngine
from sharpen.rollout.replay import Replay
from tiny_models import make_prompt, tiny_policy


@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
@pytest.mark.parametrize("stop", [(), ("1", "7=")])
def test_the_completions_are_the_same(
    architecture: str, stop: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = tiny_policy(architecture, dtype=torch.float64)
    prompts = [make_prompt(policy, text) for text in ("1+2=", "7", "12345+6789=", "9-9", "00")]
    ids = [range(20 * i, 20 * i + 5) for i in range(len(prompts))]
    sampling = Sampling(24, stop=stop, max_sequences=8)
    looked_first = LocalEngine(policy).generate(prompts, ids, sampling, seed=3)
    run = Drawing.run
    monkeypatch.setattr(Drawing, "run", lambda self, **_: run(self, ahead=True, capture=False))
    monkeypatch.setattr(grid_past, "CPU_BLOCK", 5)
    ahead = LocalEngine(policy).generate(prompts, ids, sampling, seed=3)
    assert [[c.token_ids for c in group] for group in ahead] == [[c.token_ids for c in group] for group in looked_first]
    assert [[c.finish for c in group] for group in ahead] == [[c.finish for c in group] for group in looked_first]
    assert len({len(c.token_ids) for group in ahead for c in group}) > 5
    for group, other in zip(ahead, looked_first, strict=True):
        for one, two in zip(group, other, strict=True):
            assert one.sample_logprobs == pytest.approx(two.sample_logprobs, abs=1e-6)


def test_a_graph_serves_as_long_as_its_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """By a graph that notes what is asked of it: the first run of a key is ordinary, the second makes the graph."""
    events: list[str] = []

    class Graph:
        def replay(self) -> None:
            events.append("replayed")

    @contextmanager
    def capturing(graph: Graph, pool: object) -> Iterator[None]:
        events.append("[")
        yield
        events.append("]")

    monkeypatch.setattr(torch.cuda, "CUDAGraph", Graph)
    monkeypatch.setattr(torch.cuda, "graph", capturing)
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: None)
    turn = Replay(partial(events.append, "run"), capture=True)
    for key in (1, 1, 1, 2, 3, 3):
        turn(key)
    assert events == ["run", "[", "run", "]", "replayed", "replayed", "run", "run", "[", "run", "]", "replayed"]
    events.clear()
    turn = Replay(partial(events.append, "run"), capture=False)
    turn(1)
    turn(1)
    assert events == ["run", "run"]
