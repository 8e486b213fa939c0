"""Asks a reward what one completion is worth, with a limit on its time."""

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

from sharpen.errors import RewardError
from sharpen.rewards.execution.concurrency import run_sequentially
from sharpen.rewards.reward import Reward
from sharpen.types import Completion, Finish, Group, Prompt, Score

MOST_HANGS = 3
"""A reward that hangs so often is not asked any more."""


@dataclass(frozen=True, slots=True)
class Trial:
    """One completion, what it is worth, and how long that took to find out.

    ``full`` says whether that is a full reward. ``stops`` is why a run would stop here, None where it would not.
    ``exact`` says whether ``text`` is what was asked for, blanks aside, and not what the policy's tokens make of it.
    """

    where: str
    text: str
    score: Score
    full: bool
    seconds: float
    stops: str | None = None
    exact: bool = True


class HangsError(RewardError):
    """The reward hangs so often that the check cannot go on."""


class _TimeUp(KeyboardInterrupt):
    """Not an Exception: a reward's own ``except Exception`` must not keep it."""


class Probe:
    """Scores one completion at a time and remembers each.

    A completion is worth a full reward from ``threshold`` on. Its tokens are those of the tokenizer, or its bytes where
    there is none, and the end of the sequence. Where no answer comes within ``timeout_s`` the call is ended. That is
    possible in the main thread only; elsewhere there is no limit. Raises `HangsError` at the third such call.
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
            trial = self._ask(where, Group(prompt, (self._completion(text),)))
            known = self.trials[prompt.id, text] = replace(trial, exact=trial.text.split() == text.split())
        if self._hangs == MOST_HANGS:
            raise HangsError(f"gave up after {self._hangs} calls that gave no answer within {self.timeout_s:g} s")
        return known

    def _completion(self, text: str) -> Completion:
        if self.tokenizer is None:
            ids, end = tuple(text.encode()), 0
        else:
            ids = tuple(self.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])
            end = self.tokenizer.eos_token_id
            # What the policy can write: characters that have no token are lost.
            text = str(self.tokenizer.decode(list(ids), skip_special_tokens=True))
        ids = ids if end is None else (*ids, end)
        return Completion(ids, text, (True,) * len(ids), Finish.EOS)

    def _ask(self, where: str, group: Group) -> Trial:
        started = time.perf_counter()
        score, stops = Score(None), None
        try:
            # A signal ends what runs in the main thread, and there alone.
            with _time_limit(self.timeout_s), run_sequentially():
                ((score,),) = self.reward.score([group])
        except _TimeUp:
            self._hangs += 1
            stops = f"no answer within {self.timeout_s:g} s"
        except RewardError as error:
            stops = str(error)
        except KeyboardInterrupt:
            raise
        # A reward may be anybody's, and what the completion says may be run in it: SystemExit is no Exception.
        except BaseException as error:  # noqa: BLE001
            stops = f"{type(error).__name__}: {error}"
        seconds = time.perf_counter() - started
        full = stops is None and score.total is not None and score.total >= self.threshold
        if score.total is not None and not math.isfinite(score.total):
            full, stops = False, f"the score is {score.total}"
        return Trial(where, group.completions[0].text, score, full, seconds, stops)


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
