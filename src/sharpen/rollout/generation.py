"""Blocks of requests: all are added, and run until the last has finished."""

from __future__ import annotations

from collections.abc import Sequence

from sharpen.rollout.engine import Engine, FinishedRequest, Request, Sampling
from sharpen.types import Completion, Prompt


def run_block(engine: Engine, groups: Sequence[Sequence[Request]]) -> list[list[FinishedRequest]]:
    """The finished requests of each group, in the order of the requests. A group's common context is computed once.

    The block follows from its requests alone, rounding included, provided that nothing else is in the engine. If it
    fails, its requests are cancelled.
    """
    draw_ids = [request.draw_id for group in groups for request in group]
    finished: dict[int, FinishedRequest] = {}
    try:
        for group in groups:
            engine.add(group)
        while len(finished) < len(draw_ids):
            for done in engine.next_finished(at_least=len(draw_ids) - len(finished)):
                finished[done.request.draw_id] = done
        if strangers := finished.keys() - set(draw_ids):
            raise RuntimeError(f"a block needs the engine for itself; it also finished draw ids {sorted(strangers)}")
    except BaseException:
        engine.cancel(draw_ids)
        raise
    return [[finished[request.draw_id] for request in group] for group in groups]


def generate(
    engine: Engine, prompts: Sequence[Prompt], draw_ids: Sequence[Sequence[int]], sampling: Sampling, seed: int
) -> list[tuple[Completion, ...]]:
    """One completion of prompt i for each id in ``draw_ids[i]``. Its random numbers depend on (seed, id) alone."""
    groups = [
        [Request(prompt.token_ids, draw_id, sampling, seed) for draw_id in ids]
        for prompt, ids in zip(prompts, draw_ids, strict=True)
    ]
    return [tuple(_completion(one) for one in group) for group in run_block(engine, groups)]


def _completion(one: FinishedRequest) -> Completion:
    n = len(one.token_ids)
    return Completion(
        token_ids=one.token_ids,
        text=one.text,
        loss_mask=(True,) * n,
        finish=one.finish,
        sample_logprobs=one.logprobs,
        versions=(one.version,) * n,
        draw_id=one.request.draw_id,
    )
