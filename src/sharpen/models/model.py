"""The trainer's interface to a model, whether it generates tokens or scores them."""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sharpen.batch import Batch, Need, Outputs
from sharpen.models.adapter import Adapter
from sharpen.models.adapter_base import write_base
from sharpen.models.adapter_files import write_adapter
from sharpen.models.dtype import Dtype, SavedDtype
from sharpen.models.modules import RootModule
from sharpen.models.packing.microbatches import Cost
from sharpen.models.packing.pack import PackedBatch, PackedRow
from sharpen.models.progress_bars import without_progress_bars
from sharpen.models.saved_dtype import REMAINDER, named_weights, save_pretrained, write_remainder
from sharpen.models.shape import attention_width


@dataclass(slots=True, kw_only=True)
class Model(ABC):
    """The parts common to policies and scorers. ``version`` counts the learner's training steps.

    ``root`` holds all weights and computes all outputs. With an ``adapter``, only the adapter's weights are trained and
    saved. ``source`` is the folder or hub id that the weights were loaded from.
    """

    root: RootModule
    tokenizer: Any
    pad_id: int
    context_length: int
    source: str
    version: int = 0
    adapter: Adapter | None = None

    @property
    @abstractmethod
    def task(self) -> str:
        """The task type in peft's configuration."""

    @property
    def head_name(self) -> str | None:
        """The head that is trained in full even when the backbone is frozen, if there is one."""
        return None

    @abstractmethod
    def outputs(
        self,
        batch: Batch,
        rows: Sequence[PackedRow],
        temperature: float,
        needs: frozenset[Need],
        reference: Model | None = None,
    ) -> Outputs:
        """The outputs in ``needs`` for the trained tokens of ``rows``: [E, T] on the model's device, 0 elsewhere.

        Distributions are the sampling distributions, softmax(logits / temperature). ``reference`` is the π_ref of
        the exact KL. Raises ValueError if this kind of model lacks an output or the reference is missing.
        """

    @property
    def model(self) -> nn.Module:
        """The transformers model inside the root: for saving, for adapters and for the local engine."""
        model: nn.Module = self.root.model
        return model

    @property
    def compute_dtype(self) -> Dtype:
        return self.root.compute_dtype

    @property
    def device(self) -> torch.device:
        return self.root.device

    @property
    def config(self) -> Any:
        return self.model.config

    @property
    def plain(self) -> bool:
        """Whether this architecture supports packed rows and the chunked head."""
        return self.root.plain

    @property
    def cost(self) -> Cost:
        """FLOPs of the backbone per token and per attended pair, forward and backward (6 per weight)."""
        embeddings = (self.model.get_input_embeddings(), self.model.get_output_embeddings())  # type: ignore[operator]
        tables = {id(table.weight): table.weight.numel() for table in embeddings if table is not None}
        body = sum(p.numel() for p in self.model.parameters()) - sum(tables.values())
        return Cost(per_token=6.0 * body, per_pair=12.0 * attention_width(self.model))

    def parameters(self) -> list[nn.Parameter]:
        """All trained parameters, heads included."""
        return [p for p in self.root.parameters() if p.requires_grad]

    def autocast(self) -> contextlib.AbstractContextManager[Any]:
        """The autocast context of the forward pass."""
        return self.root.autocast()

    def save(self, folder: Path, dtype: SavedDtype = "float32", *, exact: bool = False) -> None:
        """Write a Hugging Face folder: safetensors, configuration and tokenizer; with an adapter, in peft's format.

        The weights are written in ``dtype``. With ``exact``, what bfloat16 lacks of them is written too, in
        `REMAINDER`, and whatever loads models here reads both.
        """
        with without_progress_bars():
            self.tokenizer.save_pretrained(folder)
            if self.adapter is None:
                save_pretrained(self.model, folder, dtype)
                weights = named_weights(self.model)
            else:
                weights = write_adapter(self.model, self.adapter, self.head_name, folder, dtype)
                write_base(self.adapter, folder)
        (folder / REMAINDER).unlink(missing_ok=True)
        if exact and dtype != "float32":
            write_remainder(weights, folder)


def scatter_to_batch(values_N: Tensor, packed: PackedBatch, batch: Batch) -> Tensor:
    """Scatter the trained tokens' values into [E, T]; 0 elsewhere."""
    empty_ET = torch.zeros(batch.tokens_ET.shape, dtype=values_N.dtype, device=values_N.device)
    return empty_ET.index_put((packed.e_N, packed.t_N), values_N)
