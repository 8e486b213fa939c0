"""What has been drawn so far, a row for each completion that is being written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sharpen.models.kernels.compiled import on_gpu
from sharpen.rollout.sampling import uniforms
from sharpen.types import Finish


@dataclass(frozen=True, slots=True)
class Request:
    """One completion that is asked for: the ``place``-th of prompt ``prompt``, of at most ``limit`` tokens."""

    prompt: int
    place: int
    id: int
    limit: int


@dataclass(frozen=True, slots=True)
class Finished:
    """A completion as it was drawn."""

    draw: Request
    tokens: list[int]
    logprobs: list[float]
    finish: Finish


_FINISH = (None, Finish.EOS, Finish.STOP, Finish.LENGTH)
_EOS, _STOP, _LENGTH = 1, 2, 3


class RunningBatch:
    """Every step writes a token in every row; in those that have ended it goes where nobody reads it."""

    def __init__(self, width: int, eos_ids: Sequence[int], device: torch.device) -> None:
        self._eos = torch.tensor(eos_ids, dtype=torch.long, device=device)
        # One column more than anyone may fill, for the rows that have ended.
        self._columns, self._device = width + 1, device
        self._arrangement = 0
        self.draws: list[Request] = []
        self.tokens_BT = torch.empty(0, width + 1, dtype=torch.long, device=device)
        self._logprobs_BT = torch.empty(0, width + 1, dtype=torch.float64, device=device)
        self._uniform_BT = torch.empty(0, width + 1, dtype=torch.float64, device=device)
        self.length_B, self._limit_B = (torch.empty(0, dtype=torch.long, device=device) for _ in range(2))
        self._finish_B = torch.empty(0, dtype=torch.int8, device=device)
        self._write = on_gpu(_write, device)

    def __len__(self) -> int:
        return len(self.draws)

    @property
    def arrangement(self) -> int:
        """Changes whenever the tensors are new ones; a step writes into the same."""
        return self._arrangement

    def join(self, draws: Sequence[Request], seed: int) -> None:
        count = len(draws)
        self._arrangement += 1
        self.draws += draws
        uniform_BT = uniforms(seed, [d.id for d in draws], self._columns).to(self._device)
        limit_B = torch.tensor([d.limit for d in draws], device=self._device)
        self._uniform_BT = torch.cat([self._uniform_BT, uniform_BT])
        self._limit_B = torch.cat([self._limit_B, limit_B])
        for name in ("tokens_BT", "_logprobs_BT", "length_B", "_finish_B"):
            old = getattr(self, name)
            setattr(self, name, torch.cat([old, old.new_zeros(count, *old.shape[1:])]))

    def uniform_B(self) -> Tensor:
        """The number that draws the next token of each row."""
        return self._uniform_BT.gather(1, self.length_B[:, None]).squeeze(1)

    def write(self, token_B: Tensor, logprob_B: Tensor) -> None:
        self._write(
            token_B,
            logprob_B,
            self.tokens_BT,
            self._logprobs_BT,
            self.length_B,
            self._limit_B,
            self._finish_B,
            self._eos,
        )

    @property
    def open_B(self) -> Tensor:
        return self._finish_B == 0

    def tails(self, width: int) -> list[list[int]]:
        """The last tokens of each row, ``width`` at most."""
        column_BW = (self.length_B[:, None] + torch.arange(-width, 0, device=self._device)).clamp(min=0)
        lengths = self.length_B.tolist()
        return [
            row[max(0, width - n) :]
            for row, n in zip(self.tokens_BT.gather(1, column_BW).tolist(), lengths, strict=True)
        ]

    def stop(self, row_B: Tensor) -> None:
        """End rows by a stop string, if nothing better than their length has ended them."""
        hit_B = torch.zeros_like(self.open_B)
        hit_B[row_B] = True
        self._end(hit_B & (self._finish_B != _EOS), _STOP)

    def leave(self, stay_B: Tensor) -> list[Finished]:
        """Let all rows go but ``stay_B`` (indices, ascending), and say what those that go have written."""
        self._arrangement += 1
        stay = set(stay_B.tolist())
        gone = [b for b in range(len(self)) if b not in stay]
        gone_B = torch.tensor(gone, dtype=torch.long, device=self._device)
        tokens, logprobs, lengths, finishes = (
            x[gone_B].tolist() for x in (self.tokens_BT, self._logprobs_BT, self.length_B, self._finish_B)
        )
        written = []
        for b, row, numbers, n, code in zip(gone, tokens, logprobs, lengths, finishes, strict=True):
            finish = _FINISH[code]
            assert finish is not None
            written.append(Finished(self.draws[b], row[:n], numbers[:n], finish))
        self.draws = [self.draws[b] for b in sorted(stay)]
        for name in ("tokens_BT", "_logprobs_BT", "_uniform_BT", "length_B", "_limit_B", "_finish_B"):
            setattr(self, name, getattr(self, name)[stay_B])
        return written

    def _end(self, which_B: Tensor, code: int) -> None:
        self._finish_B.masked_fill_(which_B, code)


def _write(
    token_B: Tensor,
    logprob_B: Tensor,
    tokens_BT: Tensor,
    logprobs_BT: Tensor,
    length_B: Tensor,
    limit_B: Tensor,
    finish_B: Tensor,
    eos: Tensor,
) -> None:
    """Note a token in every row, in place."""
    place_B1 = length_B[:, None]
    tokens_BT.scatter_(1, place_B1, token_B[:, None])
    logprobs_BT.scatter_(1, place_B1, logprob_B.double()[:, None])
    open_B = finish_B == 0
    length_B += open_B
    finish_B.masked_fill_(open_B & (length_B >= limit_B), _LENGTH)
    finish_B.masked_fill_(open_B & (token_B[:, None] == eos).any(dim=1), _EOS)
