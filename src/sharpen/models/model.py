"""The one interface through which the trainer sees a model, whether it writes tokens or scores them."""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sharpen.models.adapter_files import write_adapter
from sharpen.models.dtype import Dtype
from sharpen.models.kernels.attention import attend_to_segments
from sharpen.models.lora import Adapter
from sharpen.models.packing.microbatches import Cost
from sharpen.models.packing.pack import PackedBatch, PackedRow
from sharpen.models.progress_bars import without_progress_bars
from sharpen.types import Batch, Need, Outputs

PLAIN_ARCHITECTURES = frozenset({"llama", "qwen2", "qwen3", "olmo2", "mistral"})
"""Model types with full causal attention that obeys a given 4-D mask and position ids, and a head that is one
matrix. The tests prove each; all others are computed in the plain layout through their own ``forward``."""


@dataclass(slots=True, kw_only=True)
class Model(ABC):
    """What a policy and a scorer share. ``version`` counts the updates of the weights.

    With an ``adapter`` all weights are frozen but its own, and it alone is saved.
    """

    model: nn.Module
    tokenizer: Any
    pad_id: int
    context_length: int
    compute_dtype: Dtype
    source: str
    version: int = 0
    adapter: Adapter | None = None

    @property
    @abstractmethod
    def task(self) -> str:
        """What the model is for, as peft's files name it."""

    @property
    def head_name(self) -> str | None:
        """The module beside the backbone that is trained in full whatever is frozen, if there is one."""
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
        """What ``needs`` asks of the trained tokens of ``rows``: [B, T] on the model's device, 0 elsewhere.

        Distributions are those that are sampled from, softmax(logits / temperature). ``reference`` is the π_ref of
        the exact KL. Raises ValueError where this kind of model cannot answer, or the reference is missing.
        """

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    @property
    def config(self) -> Any:
        return self.model.config

    @property
    def plain(self) -> bool:
        """Whether packed rows and the chunked head are proven for this architecture."""
        windowed = getattr(self.config, "sliding_window", None) is not None and getattr(
            self.config, "use_sliding_window", True
        )
        return self.config.model_type in PLAIN_ARCHITECTURES and not windowed

    @property
    def cost(self) -> Cost:
        """Operations of the model's body per token and per attended pair, forward and backward (6 per weight)."""
        embeddings = (self.model.get_input_embeddings(), self.model.get_output_embeddings())  # type: ignore[operator]
        tables = {id(table.weight): table.weight.numel() for table in embeddings if table is not None}
        body = sum(p.numel() for p in self.model.parameters()) - sum(tables.values())
        config = self.config.get_text_config()
        head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        return Cost(
            per_token=6.0 * body,
            per_pair=12.0 * config.num_hidden_layers * config.num_attention_heads * head_dim,
        )

    def parameters(self) -> list[nn.Parameter]:
        """All that is trained, heads included."""
        return [p for p in self.model.parameters() if p.requires_grad]

    def autocast(self) -> contextlib.AbstractContextManager[Any]:
        """The context in which the model computes."""
        if self.compute_dtype == "float32":
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, dtype=torch.bfloat16)

    def save(self, folder: Path) -> None:
        """Write an ordinary Hugging Face folder: safetensors, configuration, tokenizer. Of an adapter, peft's."""
        with without_progress_bars():
            self.tokenizer.save_pretrained(folder)
            if self.adapter is None:
                self.model.save_pretrained(folder)  # type: ignore[operator]
            else:
                write_adapter(self, folder)


def hidden_states(body: Any, packed: PackedBatch) -> Tensor:
    """The last hidden states of a model without its head at every position of the rows, flattened: [R·L, H]."""
    states_RLH: Tensor = body(
        input_ids=packed.input_ids_RL,
        position_ids=packed.position_ids_RL,
        use_cache=False,
        **({} if packed.segments is None else attend_to_segments(body.config, packed.segments)),
    ).last_hidden_state
    return states_RLH.flatten(0, 1)


def read_head(head: nn.Linear, hidden_NH: Tensor) -> Tensor:
    """A head of one output, in its own precision whatever the model computes in: [N]."""
    with torch.autocast(hidden_NH.device.type, enabled=False):
        read_N: Tensor = head(hidden_NH.to(head.weight.dtype)).squeeze(1)
    return read_N


def scatter_to_batch(values_N: Tensor, packed: PackedBatch, batch: Batch) -> Tensor:
    """The values of the trained tokens at their places in [B, T], 0 elsewhere."""
    empty_BT = torch.zeros(batch.tokens_BT.shape, dtype=values_N.dtype, device=values_N.device)
    return empty_BT.index_put((packed.b_N, packed.t_N), values_N)
