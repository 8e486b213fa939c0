"""The requests that are being decoded, one row each, and the tokens sampled for them so far."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from sharpen.models.kernels.compiled import on_gpu
from sharpen.rollout.local.request import EndedRow, UnfinishedRequest
from sharpen.rollout.sampling import uniforms
from sharpen.types import Finish

_FINISH = (None, Finish.EOS, Finish.STOP, Finish.LENGTH)
_EOS, _STOP, _LENGTH = 1, 2, 3
_BY_COLUMN = ("tokens_BT", "_logprobs_BT", "_uniform_BT")


class RunningBatch:
    """Every step writes a token to every row; in a finished row it lands behind the completion and is ignored.

    A row that is drawn on after a preemption begins with the tokens it had.
    """

    def __init__(self, seed: int, eos_ids: Sequence[int], device: torch.device) -> None:
        self._seed, self._device = seed, device
        self._eos = torch.tensor(eos_ids, dtype=torch.long, device=device)
        self._layout_version = 0
        self.requests: list[UnfinishedRequest] = []
        self._taken: list[bool] = []
        self.tokens_BT = torch.empty(0, 0, dtype=torch.long, device=device)
        self._logprobs_BT = torch.empty(0, 0, dtype=torch.float64, device=device)
        self._uniform_BT = torch.empty(0, 0, dtype=torch.float64, device=device)
        self.length_B, self._max_length_B = (torch.empty(0, dtype=torch.long, device=device) for _ in range(2))
        self._finish_B = torch.empty(0, dtype=torch.int8, device=device)
        self._append = on_gpu(_append, device)

    def __len__(self) -> int:
        return len(self.requests)

    @property
    def layout_version(self) -> int:
        """Changes whenever tensors are replaced. A step writes to them in place."""
        return self._layout_version

    def add_requests(self, requests: Sequence[UnfinishedRequest]) -> None:
        count = len(requests)
        self._layout_version += 1
        self.requests += requests
        self._taken += [False] * count
        # One column more than any request may fill, for writes to finished rows.
        columns = max(self.tokens_BT.shape[1], *(r.request.max_new_tokens + 1 for r in requests))
        for name in _BY_COLUMN:
            old = getattr(self, name)
            setattr(self, name, nn.functional.pad(old, (0, columns - old.shape[1])))
        draw_ids, offsets = [r.request.draw_id for r in requests], [r.request.offset for r in requests]
        uniform_BT = uniforms(self._seed, draw_ids, columns, offsets).to(self._device)
        max_length_B = torch.tensor([r.request.max_new_tokens for r in requests], device=self._device)
        length_B = torch.tensor([len(r.tokens) for r in requests], device=self._device)
        self._uniform_BT = torch.cat([self._uniform_BT, uniform_BT])
        self._max_length_B = torch.cat([self._max_length_B, max_length_B])
        self.length_B = torch.cat([self.length_B, length_B])
        for name in ("tokens_BT", "_logprobs_BT", "_finish_B"):
            old = getattr(self, name)
            setattr(self, name, torch.cat([old, old.new_zeros(count, *old.shape[1:])]))
        for row, request in enumerate(requests, start=len(self) - count):
            if n := len(request.tokens):
                self.tokens_BT[row, :n] = torch.tensor(request.tokens)
                self._logprobs_BT[row, :n] = torch.tensor(request.logprobs, dtype=torch.float64)

    def uniform_B(self) -> Tensor:
        """The random number that each row's next token is sampled with."""
        return self._uniform_BT.gather(1, self.length_B[:, None]).squeeze(1)

    def append(self, token_B: Tensor, logprob_B: Tensor) -> None:
        self._append(
            token_B,
            logprob_B,
            self.tokens_BT,
            self._logprobs_BT,
            self.length_B,
            self._max_length_B,
            self._finish_B,
            self._eos,
        )

    @property
    def unfinished_B(self) -> Tensor:
        return self._finish_B == 0

    @property
    def taken(self) -> int:
        """The number of rows that `take_finished` has returned."""
        return sum(self._taken)

    def last_tokens(self, count: int) -> list[list[int]]:
        """The last tokens of each row, at most ``count``."""
        column_BW = (self.length_B[:, None] + torch.arange(-count, 0, device=self._device)).clamp(min=0)
        lengths = self.length_B.tolist()
        return [
            row[max(0, count - n) :]
            for row, n in zip(self.tokens_BT.gather(1, column_BW).tolist(), lengths, strict=True)
        ]

    def finish_by_stop_string(self, row_B: Tensor) -> None:
        """Mark these rows as finished by a stop string. It takes precedence over the length, but not over EOS."""
        hit_B = torch.zeros_like(self.unfinished_B)
        hit_B[row_B] = True
        self._finish_B.masked_fill_(hit_B & (self._finish_B != _EOS), _STOP)

    def take_finished(self) -> list[EndedRow]:
        """The rows that have finished since the last call. They stay in the batch until they are removed."""
        codes = self._finish_B.tolist()
        rows = [b for b, code in enumerate(codes) if code and not self._taken[b]]
        ended = []
        for b, (tokens, logprobs) in zip(rows, self._drawn(rows), strict=True):
            self._taken[b] = True
            finish = _FINISH[codes[b]]
            assert finish is not None
            ended.append(EndedRow(b, self.requests[b], tokens, logprobs, finish))
        return ended

    def preempted(self, rows: Sequence[int]) -> list[UnfinishedRequest]:
        """The requests of these unfinished rows, with what they have drawn, to be taken up again."""
        return [
            replace(self.requests[b], tokens=tokens, logprobs=logprobs, preemptions=self.requests[b].preemptions + 1)
            for b, (tokens, logprobs) in zip(rows, self._drawn(rows), strict=True)
        ]

    def _drawn(self, rows: Sequence[int]) -> list[tuple[tuple[int, ...], tuple[float, ...]]]:
        row_B = torch.tensor(rows, dtype=torch.long, device=self._device)
        columns = (x[row_B].tolist() for x in (self.tokens_BT, self._logprobs_BT, self.length_B))
        return [(tuple(tokens[:n]), tuple(logprobs[:n])) for tokens, logprobs, n in zip(*columns, strict=True)]

    def untaken(self) -> list[int]:
        """The rows that `take_finished` has not returned."""
        return [b for b, taken in enumerate(self._taken) if not taken]

    def select_rows(self, index_B: Tensor) -> None:
        """Keep only the rows ``index_B``, which must be ascending."""
        self._layout_version += 1
        rows = index_B.tolist()
        self.requests, self._taken = [self.requests[b] for b in rows], [self._taken[b] for b in rows]
        for name in (*_BY_COLUMN, "length_B", "_max_length_B", "_finish_B"):
            setattr(self, name, getattr(self, name)[index_B])


def _append(
    token_B: Tensor,
    logprob_B: Tensor,
    tokens_BT: Tensor,
    logprobs_BT: Tensor,
    length_B: Tensor,
    max_length_B: Tensor,
    finish_B: Tensor,
    eos: Tensor,
) -> None:
    """Write a token to every row, in place."""
    column_B1 = length_B[:, None]
    tokens_BT.scatter_(1, column_B1, token_B[:, None])
    logprobs_BT.scatter_(1, column_B1, logprob_B.double()[:, None])
    unfinished_B = finish_B == 0
    length_B += unfinished_B
    finish_B.masked_fill_(unfinished_B & (length_B >= max_length_B), _LENGTH)
    finish_B.masked_fill_(unfinished_B & (token_B[:, None] == eos).any(dim=1), _EOS)
