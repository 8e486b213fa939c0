"""One call for completions: rows are drawn token by token, those that end leave, and those that wait come in."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from sharpen.models.kernels.compiled import on_gpu
from sharpen.rollout.engine import ModelRunner, Sampling
from sharpen.rollout.local.cuda_graph import Replay
from sharpen.rollout.local.running_batch import Finished, Request, RunningBatch
from sharpen.rollout.sampling import choose
from sharpen.types import Prompt

COMPACT_AT = 0.75
"""RunningBatch leave the batch, and others take their places, once no more than this share of it is alive."""


class Scheduler:
    """The rows of the moment, their past, and the logits of their next tokens.

    The host has to look once a token whether anybody has ended. On a CPU it looks before the token is fed back, on a
    GPU after: there drawing, noting and feeding back are one graph, at the price of a last pass that nobody needs.
    """

    def __init__(
        self,
        tokenizer: Any,
        begin: Callable[[int], ModelRunner],
        rows: RunningBatch,
        prompts: Sequence[Prompt],
        waiting: deque[Request],
        sampling: Sampling,
        seed: int,
        *,
        room: int,
    ) -> None:
        """``begin`` makes an empty decoding for rows of at most ``room`` tokens."""
        self._tokenizer, self._begin, self._room = tokenizer, begin, room
        self._rows, self._prompts, self._waiting = rows, prompts, waiting
        self._sampling, self._seed = sampling, seed
        self._decoding = begin(room)
        self._choose = on_gpu(choose, rows.tokens_BT.device)
        self._logits_BV = torch.empty(0)
        self._written: list[Finished] = []

    def run(self, *, ahead: bool, capture: bool) -> list[Finished]:
        """``ahead`` feeds every token back before looking; ``capture`` makes that a CUDA graph."""
        self._admit()
        turn = Replay(self._turn, capture=capture)
        while len(self._rows):
            if ahead:
                self._decoding.make_room()
                turn((self._rows.arrangement, self._decoding.arrangement))
                self._logits_BV = self._logits_BV[self._settle()]
            else:
                token_B = self._draw()[self._settle()]
                if len(self._rows):
                    self._decoding.make_room()
                    self._logits_BV = self._decoding.advance(token_B)
            if self._may_admit():
                self._admit()
        return self._written

    def _turn(self) -> None:
        self._logits_BV.copy_(self._decoding.advance(self._draw()))

    def _draw(self) -> Tensor:
        token_B, logprob_B = self._choose(self._logits_BV, self._rows.uniform_B(), self._sampling.truncation)
        self._rows.write(token_B, logprob_B)
        return token_B

    def _settle(self) -> Tensor | slice:
        """Let rows go that have ended, if they are many; those that stay."""
        rows = self._rows
        if self._sampling.stop:
            self._apply_stop_strings(self._sampling.stop)
        open_B = rows.open_B
        alive = int(open_B.sum())
        if alive > COMPACT_AT * len(rows):
            return slice(None)
        stay_B = open_B.nonzero().squeeze(1)
        self._written += rows.leave(stay_B)
        if alive:
            self._decoding.keep(stay_B)
        else:
            self._decoding = self._begin(self._room)
        return stay_B

    def _may_admit(self) -> bool:
        count = len(self._rows)
        return bool(self._waiting) and (
            count == 0 or (self._decoding.refills and count <= COMPACT_AT * self._sampling.max_sequences)
        )

    def _admit(self) -> None:
        """Let as many of those that wait begin as there is room for."""
        room = self._sampling.max_sequences - len(self._rows)
        draws = [self._waiting.popleft() for _ in range(min(len(self._waiting), room))]
        if not draws:
            return
        copies: dict[int, int] = {}
        for draw in draws:
            copies[draw.prompt] = copies.get(draw.prompt, 0) + 1
        logits_BV = self._decoding.admit([self._prompts[i] for i in copies], list(copies.values()))
        self._logits_BV = torch.cat([self._logits_BV, logits_BV]) if len(self._rows) else logits_BV
        self._rows.join(draws, self._seed)

    def _apply_stop_strings(self, stop: tuple[str, ...]) -> None:
        # A token holds at least one byte of text unless it is special, so this window covers the longest string.
        window = max(len(s.encode()) for s in stop) + 8
        texts = self._tokenizer.batch_decode(self._rows.tails(window), skip_special_tokens=True)
        hit = [b for b, text in enumerate(texts) if any(s in text for s in stop)]
        self._rows.stop(torch.tensor(hit, dtype=torch.long, device=self._rows.tokens_BT.device))
