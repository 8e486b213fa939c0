"""The engine's requests, one per completion, and their results."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sharpen.types import Finish


@dataclass(frozen=True, slots=True)
class Request:
    """A request for completion ``index`` of prompt number ``prompt``. ``draw_id`` selects its random numbers."""

    prompt: int
    index: int
    draw_id: int
    max_new_tokens: int


@dataclass(frozen=True, slots=True)
class FinishedRequest:
    request: Request
    tokens: list[int]
    logprobs: list[float]
    finish: Finish


def make_requests(draw_ids: Sequence[Sequence[int]], max_new_tokens: int) -> list[Request]:
    """One request for prompt i per id in ``draw_ids[i]``."""
    return [
        Request(prompt, index, draw_id, max_new_tokens)
        for prompt, ids in enumerate(draw_ids)
        for index, draw_id in enumerate(ids)
    ]
