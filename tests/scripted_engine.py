"""An engine that draws what a script says, and what answers it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from sharpen.rollout.engine import EngineCounters, FinishedRequest, Request, Snapshot
from sharpen.rollout.turns import Reply, Turns
from sharpen.types import End, Finish, Prompt, Trajectory

PROMPT = Prompt("one", (1, 2), "ab", {})
SAID = {"role": "tool", "content": "42"}
Turn = tuple[tuple[int, ...], Finish]


class ScriptedEngine:
    """Draws what ``script`` says for each draw id, turn by turn, and finishes the latest request first."""

    version = 5
    context_length = 100

    def __init__(self, script: Mapping[int, Sequence[Turn]]) -> None:
        self.script = {draw_id: list(turns) for draw_id, turns in script.items()}
        self.counters = EngineCounters()
        self.requests: list[Request] = []
        self.blocks: list[list[int]] = []
        self.released: list[int] = []
        self.cancelled: list[int] = []
        self._unfinished: list[Request] = []

    def add(self, requests: Sequence[Request]) -> None:
        self.requests += requests
        self._unfinished += requests

    def next_finished(self, at_least: int = 1) -> list[FinishedRequest]:
        self.blocks.append([request.draw_id for request in self._unfinished])
        taken, self._unfinished = self._unfinished[-at_least:], self._unfinished[:-at_least]
        return [self._finished(request) for request in reversed(taken)]

    def _finished(self, request: Request) -> FinishedRequest:
        tokens, finish = self.script[request.draw_id].pop(0)
        assert len(tokens) <= request.max_new_tokens
        text = "".join(map(str, tokens))
        return FinishedRequest(request, tokens, tuple(-t / 10 for t in tokens), finish, text, self.version)

    def cancel(self, draw_ids: Collection[int]) -> None:
        self.cancelled += draw_ids

    def release(self, draw_ids: Collection[int]) -> None:
        self.released += draw_ids

    def load(self, snapshot: Snapshot) -> None: ...

    def close(self) -> None: ...


def appending(*token_ids: int, until: int = 2) -> Turns:
    """Adds these tokens to the whole context, up to so many turns of the policy."""

    def turns(prompt: Prompt, trajectory: Trajectory) -> Reply | End:
        if sum(message["role"] == "assistant" for message in trajectory.messages) == until:
            return End.DONE
        last = trajectory.last
        return Reply((*last.prefix_ids, *last.token_ids, *token_ids), (SAID,))

    return turns
