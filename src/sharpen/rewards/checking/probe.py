"""Scores single completions with a time limit."""

from __future__ import annotations

import math
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from types import FrameType

from transformers import PreTrainedTokenizerBase

from sharpen.data.tokens import continuation, hidden_ids, visible_text
from sharpen.errors import RewardError
from sharpen.rewards.execution.concurrency import run_sequentially
from sharpen.rewards.reward import Reward
from sharpen.types import Group, Prompt, Score, Trajectory, single_turn

MOST_HANGS = 3
"""Number of timeouts after which the check gives up."""


@dataclass(frozen=True, slots=True)
class Trial:
    """One completion, its score, and the seconds that scoring took.

    ``full`` says whether the reward is full. ``stops`` is why a run would stop here, None if it would not. ``exact``
    says whether ``text`` is the requested text, blanks aside, rather than an approximation in the policy's tokens.
    """

    where: str
    text: str
    score: Score
    full: bool
    seconds: float
    stops: str | None = None
    exact: bool = True


class HangsError(RewardError):
    """The reward timed out too often to continue the check."""


class _TimeUp(KeyboardInterrupt):
    """Not an Exception, so that ``except Exception`` in a reward does not swallow it."""


class Probe:
    """Scores one completion at a time and caches the results.

    A reward of at least ``threshold`` is full. A completion's tokens are the tokenizer's, or its bytes without one,
    followed by the end-of-sequence token. Calls time out after ``timeout_s``, in the main thread only; elsewhere there
    is no limit. Raises `HangsError` at the third timeout.
    """

    def __init__(
        self, reward: Reward, *, threshold: float, tokenizer: PreTrainedTokenizerBase | None, timeout_s: float
    ) -> None:
        self.reward, self.threshold, self.timeout_s = reward, threshold, timeout_s
        self.tokenizer = tokenizer
        self.trials: dict[tuple[str, str], Trial] = {}
        self._hangs = 0

    def __call__(self, where: str, prompt: Prompt, text: str) -> Trial:
        known = self.trials.get((prompt.id, text))
        if known is None:
            trial = self._ask(where, Group(prompt, (self._completion(prompt, text),)))
            known = self.trials[prompt.id, text] = replace(trial, exact=trial.text.split() == text.split())
        if self._hangs == MOST_HANGS:
            raise HangsError(f"gave up after {self._hangs} calls without an answer within {self.timeout_s:g} s")
        return known

    def _completion(self, prompt: Prompt, text: str) -> Trajectory:
        if self.tokenizer is None:
            ids, end = tuple(text.encode()), 0
        else:
            ids = continuation(self.tokenizer, prompt.text, prompt.token_ids, text)
            end = self.tokenizer.eos_token_id
            # What the policy can generate: characters without a token are lost.
            text = visible_text(self.tokenizer, ids, hidden_ids(self.tokenizer))
        ids = ids if end is None else (*ids, end)
        return single_turn(prompt.token_ids, ids, text)

    def _ask(self, where: str, group: Group) -> Trial:
        started = time.perf_counter()
        score, stops = Score(None), None
        try:
            # The signal only interrupts the main thread.
            with _time_limit(self.timeout_s), run_sequentially():
                ((score,),) = self.reward.score([group])
        except _TimeUp:
            self._hangs += 1
            stops = f"no answer within {self.timeout_s:g} s"
        except RewardError as error:
            stops = str(error)
        except KeyboardInterrupt:
            raise
        # User rewards may execute the completion, and SystemExit is not an Exception.
        except BaseException as error:  # noqa: BLE001
            stops = f"{type(error).__name__}: {error}"
        seconds = time.perf_counter() - started
        full = stops is None and score.total is not None and score.total >= self.threshold
        if score.total is not None and not math.isfinite(score.total):
            full, stops = False, f"the score is {score.total}"
        return Trial(where, group.trajectories[0].text, score, full, seconds, stops)


@contextmanager
def _time_limit(seconds: float) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(signum: int, frame: FrameType | None) -> None:
        raise _TimeUp

    before = signal.signal(signal.SIGALRM, end)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
