"""The root module of a model: one forward from token ids to log-probabilities, values or scores.

All weights, heads included, are parameters of the root, and only its forward and the backward of what that returns
compute with them. So the root can be sharded (FSDP2: wrap each decoder layer, then the root): while it is called, the
weights outside the layers are whole. Elsewhere only their names and shapes may be read.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor, nn

from sharpen.batch import Need
from sharpen.errors import ModelError
from sharpen.models.adapter import NAME, using_adapter
from sharpen.models.dtype import Dtype
from sharpen.models.kernels.attention import attend_to_segments
from sharpen.models.logprobs import Selected, full_logprobs, selected_logprobs
from sharpen.models.packing.pack import PackedBatch
from sharpen.models.rope import longrope_switch, rope_by_row

PLAIN_ARCHITECTURES = frozenset({"llama", "qwen2", "qwen3", "olmo2", "mistral"})
"""Model types that can be packed: full causal attention that follows a given 4-D mask and position ids, and a head
that is a single matrix. Tests prove each. All others are padded and run through their own ``forward``."""

ReferenceHead = tuple[Tensor, Callable[[Tensor], Tensor]]
"""π_ref at N tokens: the inputs of its head, [N, ·], and the head, which gives the logits [n, V] of n of them."""


class RootModule(nn.Module):
    """A transformers model, which stays as it is, in the precision in which it computes."""

    def __init__(self, model: nn.Module, compute_dtype: Dtype) -> None:
        super().__init__()
        self.model: Any = model
        self.compute_dtype = compute_dtype

    @property
    def plain(self) -> bool:
        """Whether this architecture supports packed rows and the chunked head."""
        config = self.model.config
        windowed = getattr(config, "sliding_window", None) is not None and getattr(config, "use_sliding_window", True)
        return config.model_type in PLAIN_ARCHITECTURES and not windowed

    @property
    def shares_prefixes(self) -> bool:
        """Whether a prefix is computed alike for each of the samples after it, whatever their lengths."""
        return self.plain and longrope_switch(self.model.config) is None

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    def autocast(self) -> contextlib.AbstractContextManager[Any]:
        if self.compute_dtype == "float32":
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, dtype=torch.bfloat16)


class PolicyModule(RootModule):
    """A causal language model and, if it is also the critic, a value head H → 1."""

    def __init__(self, model: nn.Module, compute_dtype: Dtype) -> None:
        super().__init__(model, compute_dtype)
        self.value_head: nn.Linear | None
        self.register_module("value_head", None)

    def add_value_head(self) -> nn.Linear:
        """Add a value head, initialised to 0. PyTorch's random state does not change."""
        with torch.random.fork_rng(devices=[]):
            head = nn.Linear(self.head_shape[1], 1, dtype=torch.float32)
        nn.init.zeros_(head.weight)
        nn.init.zeros_(head.bias)
        self.value_head = head.to(self.device)
        return self.value_head

    @property
    def head_shape(self) -> torch.Size:
        """(V, H)."""
        shape: torch.Size = self.model.get_output_embeddings().weight.shape
        return shape

    def forward(
        self,
        packed: PackedBatch | None = None,
        *,
        temperature: float = 1.0,
        needs: frozenset[Need | Literal["head_inputs"]] = frozenset(),
        reference: ReferenceHead | None = None,
        adapter: str | None = NAME,
        head_inputs: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """What is in ``needs`` for the N trained tokens of ``packed``, each [N]; in nats.

        The entropy always comes with the log-probabilities; it has a gradient only if it is in ``needs``. The exact KL
        is to ``reference``. ``adapter`` is the LoRA adapter to run with, if the model has any; None runs the base.

        For the KL of another model to this one, ``{"head_inputs"}`` gives what its head reads at the N tokens, and a
        call with only some rows of these, ``head_inputs``, gives ``{"logits"}``, [n, V], without a gradient.
        """
        if head_inputs is not None:
            return {"logits": self.logits(head_inputs)}
        assert packed is not None
        with using_adapter(self.model, adapter), self.autocast(), rope_by_row(self.model, packed.length_RL):
            return self._forward(packed, temperature, needs, reference)

    def _forward(
        self, packed: PackedBatch, temperature: float, needs: frozenset[str], reference: ReferenceHead | None
    ) -> dict[str, Tensor]:
        found: dict[str, Tensor] = {}
        distribution = bool(needs & {"logprobs", "entropy", "exact_kl"})
        entropy = "entropy" in needs
        selected: Selected | None = None
        if self.plain:
            hidden_NH = head_inputs = hidden_states(self.model.get_decoder(), packed)[packed.source_N]
            if distribution:
                selected = selected_logprobs(
                    hidden_NH,
                    self.model.get_output_embeddings().weight,
                    packed.target_N,
                    temperature,
                    self._product_dtype,
                    entropy_gradient=entropy,
                    reference=reference,
                )
        else:
            hidden_NH, logits_NV = self._own_forward(packed)
            head_inputs = logits_NV
            if distribution:
                ref_NV = None if reference is None else reference[1](reference[0])
                selected = full_logprobs(
                    logits_NV, packed.target_N, temperature, entropy_gradient=entropy, reference_NV=ref_NV
                )
        if selected is not None:
            if needs & {"logprobs", "entropy"}:
                found["entropy"] = selected.entropy_N
            if "logprobs" in needs:
                found["logprobs"] = selected.logprobs_N
            if selected.kl_N is not None:
                found["exact_kl"] = selected.kl_N
        if "head_inputs" in needs:
            found["head_inputs"] = head_inputs
        if "values" in needs:
            assert self.value_head is not None
            found["values"] = read_head(self.value_head, hidden_NH)
        return found

    @torch.no_grad()
    def logits(self, head_inputs: Tensor) -> Tensor:
        """The logits of ``head_inputs``, [n, V], in at least float32. To be called inside the root's forward only."""
        if not self.plain:
            return head_inputs
        precise = torch.promote_types(head_inputs.dtype, torch.float32)
        dtype = precise if self.compute_dtype == "float32" else torch.bfloat16
        weight: Tensor = self.model.get_output_embeddings().weight
        with torch.autocast(head_inputs.device.type, enabled=False):
            return (head_inputs.to(dtype) @ weight.to(dtype).T).to(precise)

    @property
    def _product_dtype(self) -> torch.dtype:
        return torch.bfloat16 if self.compute_dtype == "bfloat16" else torch.float32

    def _own_forward(self, packed: PackedBatch) -> tuple[Tensor, Tensor]:
        """The head's input and the logits, which may be more than a matrix product of it."""
        inputs: list[Tensor] = []
        head: nn.Module = self.model.get_output_embeddings()
        handle = head.register_forward_pre_hook(lambda _, given: inputs.append(given[0]))
        try:
            logits_RLV: Tensor = self.model(
                input_ids=packed.input_ids_RL, position_ids=packed.position_ids_RL, use_cache=False
            ).logits
        finally:
            handle.remove()
        hidden_NH, logits_NV = (x.flatten(0, 1)[packed.source_N] for x in (inputs[-1], logits_RLV))
        return hidden_NH, logits_NV


class ScorerModule(RootModule):
    """A backbone with a linear head H → 1 for each token, as transformers' classifiers have it."""

    @property
    def head_name(self) -> str:
        return named_head(self.model)[0]

    @property
    def head(self) -> nn.Linear:
        return named_head(self.model)[1]

    def forward(
        self, packed: PackedBatch, *, needs: frozenset[Need | Literal["head_inputs"]] = frozenset()
    ) -> dict[str, Tensor]:
        """At the N trained tokens of ``packed``: the head's output at each (scores) or at the token before (values),
        [N]; or what the head reads at each (head_inputs), [N, H]."""
        with self.autocast(), rope_by_row(self.model, packed.length_RL):
            hidden_PH = hidden_states(self.model.base_model, packed)
        found: dict[str, Tensor] = {}
        if "head_inputs" in needs:
            found["head_inputs"] = hidden_PH[packed.place_N]
        if "scores" in needs:
            found["scores"] = read_head(self.head, hidden_PH[packed.place_N])
        if "values" in needs:
            found["values"] = read_head(self.head, hidden_PH[packed.source_N])
        return found


def hidden_states(body: Any, packed: PackedBatch) -> Tensor:
    """The backbone's last hidden states at every position of the rows, flattened: [R·L, H]."""
    states_RLH: Tensor = body(
        input_ids=packed.input_ids_RL,
        position_ids=packed.position_ids_RL,
        use_cache=False,
        **({} if packed.segments is None else attend_to_segments(body.config, packed.segments)),
    ).last_hidden_state
    return states_RLH.flatten(0, 1)


def read_head(head: nn.Linear, hidden_NH: Tensor) -> Tensor:
    """The output of a head H → 1 in the head's own precision, whatever the autocast type: [N]."""
    with torch.autocast(hidden_NH.device.type, enabled=False):
        read_N1: Tensor = head(hidden_NH.to(head.weight.dtype))
    # FSDP2 warns of a view as its result.
    return read_N1.squeeze(1).clone()


def named_head(model: Any) -> tuple[str, nn.Linear]:
    """The only module besides the backbone that has weights, and its name."""
    heads = [
        (name, module)
        for name, module in model.named_children()
        if name != model.base_model_prefix and any(True for _ in module.parameters())
    ]
    if len(heads) != 1 or not isinstance(heads[0][1], nn.Linear) or heads[0][1].out_features != 1:
        raise ModelError(f"the head of {type(model).__name__} is not a single linear layer with one output")
    return heads[0]
