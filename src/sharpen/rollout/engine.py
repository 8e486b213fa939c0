"""The interface of a rollout engine: requests go in, finished requests come out as they end."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from sharpen.errors import RecipeError
from sharpen.models.policy import Policy
from sharpen.rollout.sampling import Truncation
from sharpen.types import Finish


@dataclass(frozen=True, slots=True)
class Sampling:
    """Sampling parameters of a request.

    A ``stop`` string is looked for in the text of the tokens that the request draws, special tokens included, so it may
    be one, such as ``<|im_end|>``, or contain one.

    The others are those of `Truncation`. Raises RecipeError for a value out of range.
    """

    max_new_tokens: int = 256
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    stop: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name, sound, allowed in (
            ("max_new_tokens", self.max_new_tokens >= 1, "at least 1"),
            ("temperature", 0 <= self.temperature < math.inf, "0 or more"),
            ("top_k", self.top_k >= 0, "0 or more"),
            ("top_p", 0 < self.top_p <= 1, "above 0 and at most 1"),
            ("min_p", 0 <= self.min_p <= 1, "between 0 and 1"),
            ("stop", not isinstance(self.stop, str) and all(self.stop), "a tuple of texts that are not empty"),
        ):
            if not sound:
                raise RecipeError(f"{name} is {allowed}, not {getattr(self, name)!r}")

    @property
    def truncation(self) -> Truncation:
        return Truncation(self.temperature, self.top_k, self.top_p, self.min_p)

    def limited_to(self, tokens: int) -> Sampling:
        """The same, with at most this many new tokens."""
        return self if self.max_new_tokens <= tokens else replace(self, max_new_tokens=tokens)


@dataclass(frozen=True, slots=True)
class Request:
    """Draw tokens after ``token_ids``, the whole context so far.

    The random numbers are those of (``seed``, ``draw_id``) from position ``offset`` on: the number of tokens that this
    trajectory has drawn in earlier requests. ``keep``: the conversation may go on, so its keys and values are kept for
    the next request of the same draw id, until `Engine.release`.
    """

    token_ids: tuple[int, ...]
    draw_id: int
    sampling: Sampling
    seed: int
    offset: int = 0
    keep: bool = False

    @property
    def max_new_tokens(self) -> int:
        return self.sampling.max_new_tokens


@dataclass(frozen=True, slots=True)
class FinishedRequest:
    """What a request drew: tokens, their log-probabilities in nats and their text without ends and padding.

    ``version`` is that of the weights that drew them, ``preemptions`` how often the request had to make room for others
    and was taken up again. Nothing records that per request: a step's metrics have the sum, from `EngineCounters`.
    """

    request: Request
    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    finish: Finish
    text: str
    version: int
    preemptions: int = 0


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A published version of the policy, one for each training step.

    In this process that is the live policy; its weights stand still while an engine draws.
    """

    version: int
    policy: Policy


@dataclass(slots=True)
class EngineCounters:
    """Work since the engine was made. ``decoded_tokens`` counts a row of every step; ``prefill_tokens`` and
    ``reused_tokens`` are the tokens of contexts that were computed, or whose keys and values had been kept."""

    prefill_tokens: int = 0
    reused_tokens: int = 0
    decoded_tokens: int = 0
    preemptions: int = 0
    evictions: int = 0


class Engine(Protocol):
    """Requests that are unfinished at the same time share truncation, stop strings and seed."""

    @property
    def version(self) -> int:
        """Of the weights that it draws with."""
        ...

    @property
    def context_length(self) -> int:
        """The most tokens of a context and what is drawn after it: the model's own limit, or what memory allows."""
        ...

    @property
    def counters(self) -> EngineCounters: ...

    def add(self, requests: Sequence[Request]) -> None:
        """Requests join those that run. Requests of one call with the same context compute it once.

        Raises:
            ValueError: a request is malformed, or its draw id or sampling parameters clash with an unfinished one's.
            RecipeError: a request needs more memory than there is for keys and values.
        """
        ...

    def next_finished(self, at_least: int = 1) -> list[FinishedRequest]:
        """Work until ``at_least`` more requests have finished, or none is left. Empty only if none was left.

        It returns or raises within a time of the engine's own choice: one that waits for another process or machine
        sets itself a limit, after which it raises an exception that names what does not answer, and the requests.
        """
        ...

    def cancel(self, draw_ids: Collection[int]) -> None:
        """Forget these requests and their conversations, which are never returned. Unknown ids have no effect."""
        ...

    def release(self, draw_ids: Collection[int]) -> None:
        """These conversations are over: drop their keys and values."""
        ...

    def load(self, snapshot: Snapshot) -> None:
        """Draw with these weights from now on. Raises ValueError if they are not newer than the present ones."""
        ...

    def close(self) -> None:
        """Free all memory. Any later use is an error."""
        ...
