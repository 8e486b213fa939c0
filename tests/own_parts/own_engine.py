"""An engine from outside the package: it replays tokens and log-probabilities that stand in a file."""

import json
from collections.abc import Collection, Sequence
from pathlib import Path

from sharpen.models.policy import Policy
from sharpen.rollout.engine import EngineCounters, FinishedRequest, Request, Snapshot
from sharpen.rollout.settings import EngineSettings
from sharpen.types import Finish


class ReplayEngine:
    def __init__(self, settings: EngineSettings, policy: Policy) -> None:
        self.version, self.counters, self.tokenizer = 0, EngineCounters(), policy.tokenizer
        self.context_length = policy.context_length
        self.answers = json.loads(Path(settings.settings["answers"]).read_text())
        self.waiting: list[Request] = []

    def add(self, requests: Sequence[Request]) -> None:
        self.waiting += requests

    def next_finished(self, at_least: int = 1) -> list[FinishedRequest]:
        finished, self.waiting = [self.replay(request) for request in self.waiting], []
        return finished

    def replay(self, request: Request) -> FinishedRequest:
        ids, logprobs = self.answers[request.draw_id]
        text = self.tokenizer.decode(ids, skip_special_tokens=True)
        return FinishedRequest(request, tuple(ids), tuple(logprobs), Finish.EOS, text, self.version)

    def cancel(self, draw_ids: Collection[int]) -> None:
        self.waiting = [request for request in self.waiting if request.draw_id not in draw_ids]

    def release(self, draw_ids: Collection[int]) -> None: ...

    def load(self, snapshot: Snapshot) -> None:
        self.version = snapshot.version

    def close(self) -> None: ...
