"""The requests that are being decoded, one row each, and the tokens sampled for them so far."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from sharpen.models.kernels.compiled import on_gpu
from sharpen.rollout.local.request import FinishedRequest, Request
from sharpen.rollout.sampling import uniforms
from sharpen.types import Finish

_FINISH = (None, Finish.EOS, Finish.STOP, Finish.LENGTH)
_EOS, _STOP, _LENGTH = 1, 2, 3


class RunningBatch:
    """Every step writes a token to every row; in a finished row it lands behind the completion and is ignored."""

    def __init__(self, max_new_tokens: int, eos_ids: Sequence[int], device: torch.device) -> None:
        self._eos = torch.tensor(eos_ids, dtype=torch.long, device=device)
        # One column more than any request may fill, for writes to finished rows.
        self._columns, self._device = max_new_tokens + 1, device
        self._layout_version = 0
        self.requests: list[Request] = []
        self.tokens_BT = torch.empty(0, self._columns, dtype=torch.long, device=device)
        self._logprobs_BT = torch.empty(0, self._columns, dtype=torch.float64, device=device)
        self._uniform_BT = torch.empty(0, self._columns, dtype=torch.float64, device=device)
        self.length_B, self._max_length_B = (torch.empty(0, dtype=torch.long, device=device) for _ in range(2))
        self._finish_B = torch.empty(0, dtype=torch.int8, device=device)
        self._append = on_gpu(_append, device)

    def __len__(self) -> int:
        return len(self.requests)

    @property
    def layout_version(self) -> int:
        """Changes whenever tensors are replaced. A step writes to them in place."""
        return self._layout_version

    def add_requests(self, requests: Sequence[Request], seed: int) -> None:
        count = len(requests)
        self._layout_version += 1
        self.requests += requests
        uniform_BT = uniforms(seed, [r.draw_id for r in requests], self._columns).to(self._device)
        max_length_B = torch.tensor([r.max_new_tokens for r in requests], device=self._device)
        self._uniform_BT = torch.cat([self._uniform_BT, uniform_BT])
        self._max_length_B = torch.cat([self._max_length_B, max_length_B])
        for name in ("tokens_BT", "_logprobs_BT", "length_B", "_finish_B"):
            old = getattr(self, name)
            setattr(self, name, torch.cat([old, old.new_zeros(count, *old.shape[1:])]))

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

    def select_rows(self, index_B: Tensor) -> list[FinishedRequest]:
        """Keep only the rows ``index_B``, which must be ascending. The others must have finished and are returned."""
        self._layout_version += 1
        kept = set(index_B.tolist())
        removed = [b for b in range(len(self)) if b not in kept]
        removed_B = torch.tensor(removed, dtype=torch.long, device=self._device)
        tokens, logprobs, lengths, codes = (
            x[removed_B].tolist() for x in (self.tokens_BT, self._logprobs_BT, self.length_B, self._finish_B)
        )
        finished = []
        for b, row_tokens, row_logprobs, n, code in zip(removed, tokens, logprobs, lengths, codes, strict=True):
            finish = _FINISH[code]
            assert finish is not None
            finished.append(FinishedRequest(self.requests[b], row_tokens[:n], row_logprobs[:n], finish))
        self.requests = [self.requests[b] for b in sorted(kept)]
        for name in ("tokens_BT", "_logprobs_BT", "_uniform_BT", "length_B", "_max_length_B", "_finish_B"):
            setattr(self, name, getattr(self, name)[index_B])
        return finished


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
