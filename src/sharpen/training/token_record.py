"""What a step computed for each of its tokens, kept to be written with the samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sharpen.batch import Batch, Outputs
from sharpen.functional.losses.kl import k3
from sharpen.functional.losses.ratio import log_ratio, ratio
from sharpen.methods import LossTerms
from sharpen.training.ranks import Ranks
from sharpen.types import NOT_DRAWN

ROW = "row"
"""The stream [E] with the number that each trajectory has in the batch of the step."""
ANNOTATED = {
    "rollout_logprobs": "rollout_logprob",
    "ref_logprobs": "ref_logprob",
    "advantages": "advantage",
    "values": "value",
    "step_rewards": "step_reward",
    "kl": "kl",
}
"""Streams of the batch, and the columns that they are written to."""
OF_LAST_PASS = ("ratio", "clipped")
"""These change from pass to pass, and are written as the last one found them; all others as the first did."""


class TokenRecord:
    """Collects columns over the micro-batches of a step: one number for each token, NaN where none was computed.

    ``coefficient`` is the gradient coefficient, −∂loss/∂log π of the token by the training's own backward pass at the
    first update that trains it, divided by ``weight``, the weight of the token's loss term over the optimizer step.
    What the loss adds for entropy, or for an exact KL, does not go through log π of the token, and is not in it.
    """

    def __init__(self, batch: Batch, *, has_coefficient: bool) -> None:
        """``batch`` is that of the whole step, numbered by `numbered`; ``has_coefficient`` if the loss is of log π."""
        self._batch, self._has_coefficient = batch, has_coefficient
        self._found: dict[str, list[tuple[Tensor, Tensor, Tensor]]] = {}
        self._updated: list[Batch] = []

    @staticmethod
    def numbered(batch: Batch) -> Batch:
        return batch.with_streams(**{ROW: torch.arange(len(batch))})

    def update(self, minibatch: Batch) -> None:
        """An optimizer step of the first pass, with its weights."""
        self._updated.append(minibatch)

    def add(self, batch: Batch, outputs: Outputs, terms: LossTerms, *, first_pass: bool) -> None:
        """Add a micro-batch after its backward pass, in which the outputs kept their gradients."""
        figures: dict[str, Tensor] = {}
        if "logprobs" in outputs:
            logprobs_ET = outputs["logprobs"]
            figures["logprob"] = logprobs_ET
            figures["gradient"] = torch.zeros_like(logprobs_ET) if logprobs_ET.grad is None else logprobs_ET.grad
            if "old_logprobs" in batch:
                figures["old_logprob"] = batch["old_logprobs"]
                figures["ratio"] = ratio(log_ratio(logprobs_ET.detach(), batch["old_logprobs"]))
            if "exact_kl" in outputs:
                figures["kl"] = outputs["exact_kl"]
            elif "ref_logprobs" in batch:
                figures["kl"] = k3(logprobs_ET.detach(), batch["ref_logprobs"])
        if "entropy" in outputs:
            figures["entropy"] = outputs["entropy"]
        if "scores" in outputs:
            figures["score"] = outputs["scores"]
        if terms.unclipped_ET is not None:
            figures["clipped"] = ~terms.unclipped_ET
        for name, figure_ET in figures.items():
            if first_pass or name in OF_LAST_PASS:
                # A copy: the tensors of a compiled forward pass may be used again by the next micro-batch.
                found = (batch[ROW], batch.mask_ET, figure_ET.detach().float().clone())
                self._found.setdefault(name, []).append(found)

    def columns(self, ranks: Ranks) -> dict[str, np.ndarray]:
        """Every column, [E, T] in float32. All ranks make this call, and all get the tokens of all."""
        dense = {name: self._dense(parts) for name, parts in self._found.items()}
        for of_name in dense.values():
            ranks.sum_(of_name)
        columns = {name: _where(value, count) for name, (value, count) in dense.items()}
        for stream, column in ANNOTATED.items():
            if stream in self._batch and column not in columns:
                mask_ET = (
                    (self._batch.versions_ET != NOT_DRAWN) if stream == "rollout_logprobs" else self._batch.mask_ET
                )
                columns[column] = self._batch[stream].float().masked_fill(~mask_ET, torch.nan)
        columns["weight"] = self._weights()
        if self._has_coefficient:
            # A trajectory whose tokens all have advantage 0 is not computed: its gradient is exactly 0.
            gradient = columns.pop("gradient", torch.zeros(self._batch.tokens_ET.shape)).nan_to_num(nan=0.0)
            weight = columns["weight"]
            columns["coefficient"] = torch.where(gradient == 0, 0.0 * weight, -gradient / weight)
        return {name: column.numpy() for name, column in columns.items()}

    def _dense(self, parts: Sequence[tuple[Tensor, Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
        """The values of all micro-batches in the places of their tokens, and which places have one."""
        value_ET = torch.zeros(self._batch.tokens_ET.shape)
        there_ET = torch.zeros(self._batch.tokens_ET.shape)
        for row_E, mask_ET, figure_ET in parts:
            rows, mask, figure = row_E.cpu(), mask_ET.cpu(), figure_ET.cpu()
            # Of a trajectory that is cut between micro-batches, each has some of the tokens.
            value_ET[rows] = torch.where(mask, figure, value_ET[rows])
            there_ET[rows] = torch.where(mask, 1.0, there_ET[rows])
        return value_ET, there_ET

    def _weights(self) -> Tensor:
        weights_ET = torch.full(self._batch.tokens_ET.shape, torch.nan)
        for minibatch in self._updated:
            weights = minibatch["weights"].float()
            of_token = weights if weights.dim() > 1 else weights[:, None].expand(minibatch.tokens_ET.shape)
            weights_ET[minibatch[ROW]] = of_token.masked_fill(~minibatch.mask_ET, torch.nan)
        return weights_ET


def _where(value_ET: Tensor, there_ET: Tensor) -> Tensor:
    return value_ET.masked_fill(there_ET == 0, torch.nan)


def token_rows(columns: Mapping[str, np.ndarray], batch: Batch) -> list[dict[str, Any]]:
    """The columns of each trajectory of the step, as long as it has tokens, and the loss mask; one that has no number
    in a column lacks it."""
    rows = []
    for number, length in enumerate(batch.lengths_E.tolist()):
        of_row = {name: column[number, :length] for name, column in columns.items()}
        computed = {name: values for name, values in of_row.items() if not np.isnan(values).all()}
        rows.append({"loss_mask": batch.mask_ET[number, :length].tolist(), **computed})
    return rows
