"""The policy: a causal language model with its tokenizer and optional value head."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import AutoModelForCausalLM

from sharpen.batch import Batch, Need, Outputs
from sharpen.errors import ModelError
from sharpen.models.adapter_files import find_adapter, merge_adapter
from sharpen.models.dtype import AskedDtype, resolve_dtype
from sharpen.models.load import (
    context_length,
    end_of_sequence_ids,
    load_tokenizer,
    load_weights,
    located,
    prepare,
    refuse_missing,
)
from sharpen.models.logprobs import Selected, full_logprobs, selected_logprobs
from sharpen.models.model import PLAIN_ARCHITECTURES, Model, hidden_states, read_head, scatter_to_batch
from sharpen.models.packing.pack import PackedBatch, PackedRow, pack

__all__ = ["PLAIN_ARCHITECTURES", "Policy", "load_policy"]

VALUE_HEAD = "value_head.safetensors"


@dataclass(slots=True, kw_only=True)
class Policy(Model):
    """A causal language model and its tokenizer. With a ``value_head`` it is also the critic, on a shared backbone."""

    eos_ids: frozenset[int]
    value_head: nn.Linear | None = None

    def add_value_head(self) -> None:
        """Add a head H → 1, initialised to 0."""
        with torch.random.fork_rng(devices=[]):
            head = nn.Linear(self._head_weight.shape[1], 1, dtype=torch.float32)
        nn.init.zeros_(head.weight)
        nn.init.zeros_(head.bias)
        self.value_head = head.to(self.device)

    def load_value_head(self, folder: str | Path) -> None:
        """Load the value head from a folder that a policy was saved to, if there is one."""
        if (Path(folder) / VALUE_HEAD).is_file():
            self.add_value_head()
            assert self.value_head is not None
            self.value_head.load_state_dict(load_file(Path(folder) / VALUE_HEAD))

    @property
    def task(self) -> str:
        return "CAUSAL_LM"

    def parameters(self) -> list[nn.Parameter]:
        return [*Model.parameters(self), *(() if self.value_head is None else self.value_head.parameters())]

    def save(self, folder: Path) -> None:
        """Write a Hugging Face folder, with the value head in a file of its own."""
        Model.save(self, folder)
        (folder / VALUE_HEAD).unlink(missing_ok=True)
        if self.value_head is not None:
            save_file(
                {name: tensor.cpu() for name, tensor in self.value_head.state_dict().items()}, folder / VALUE_HEAD
            )

    def outputs(
        self,
        batch: Batch,
        rows: Sequence[PackedRow],
        temperature: float,
        needs: frozenset[Need],
        reference: Model | None = None,
    ) -> Outputs:
        """log π, entropy, exact KL to ``reference``, and the value head's values before each token.

        The entropy always comes with the log-probabilities; it has a gradient only if it is in ``needs``.
        """
        if "scores" in needs:
            raise ValueError("a policy has no scores: use a Scorer")
        if "values" in needs and self.value_head is None:
            raise ValueError("the policy has no value head: call add_value_head()")
        packed = pack(batch, rows, self.pad_id, padded=not self.plain, with_last=False).to(self.device)
        with self.autocast():
            hidden_NH, selected = self._evaluate(packed, temperature, needs, reference)
        outputs: dict[str, Tensor] = {}
        if selected is not None and needs & {"logprobs", "entropy"}:
            outputs["entropy"] = scatter_to_batch(selected.entropy_N, packed, batch)
        if selected is not None and "logprobs" in needs:
            outputs["logprobs"] = scatter_to_batch(selected.logprobs_N, packed, batch)
        if selected is not None and selected.kl_N is not None:
            outputs["exact_kl"] = scatter_to_batch(selected.kl_N, packed, batch)
        if self.value_head is not None and "values" in needs:
            outputs["values"] = scatter_to_batch(read_head(self.value_head, hidden_NH), packed, batch)
        return Outputs(outputs)

    def _evaluate(
        self, packed: PackedBatch, temperature: float, needs: frozenset[Need], reference: Model | None
    ) -> tuple[Tensor, Selected | None]:
        """The hidden states that predict the trained tokens, [N, H], and their log-probabilities, entropy and KL."""
        ref_policy = self._checked(reference) if "exact_kl" in needs else None
        entropy = "entropy" in needs
        if not self.plain:
            hidden_NH, logits_NV = self._own_forward(packed)
            ref_NV = None
            if ref_policy is not None:
                with torch.no_grad(), ref_policy.autocast():
                    ref_NV = ref_policy._own_forward(packed.to(ref_policy.device))[1].to(self.device)
            return hidden_NH, full_logprobs(
                logits_NV, packed.target_N, temperature, entropy_gradient=entropy, reference_NV=ref_NV
            )
        hidden_NH = self._hidden(packed)
        if not needs & {"logprobs", "entropy", "exact_kl"}:
            return hidden_NH, None
        ref = None
        if ref_policy is not None:
            with torch.no_grad(), ref_policy.autocast():
                ref_hidden_NH = ref_policy._hidden(packed.to(ref_policy.device)).to(self.device)
            ref = ref_hidden_NH, ref_policy._head_weight.detach().to(self.device)
        dtype = torch.bfloat16 if self.compute_dtype == "bfloat16" else torch.float32
        return hidden_NH, selected_logprobs(
            hidden_NH,
            self._head_weight,
            packed.target_N,
            temperature,
            dtype,
            entropy_gradient=entropy,
            reference=ref,
        )

    def _hidden(self, packed: PackedBatch) -> Tensor:
        return hidden_states(self.model.get_decoder(), packed)[packed.source_N]  # type: ignore[operator]

    def _own_forward(self, packed: PackedBatch) -> tuple[Tensor, Tensor]:
        """The head's input and the logits, which may be more than a matrix product of it."""
        head_inputs: list[Tensor] = []
        head: nn.Module = self.model.get_output_embeddings()  # type: ignore[operator]
        handle = head.register_forward_pre_hook(lambda _, inputs: head_inputs.append(inputs[0]))
        try:
            logits_RLV: Tensor = self.model(
                input_ids=packed.input_ids_RL, position_ids=packed.position_ids_RL, use_cache=False
            ).logits
        finally:
            handle.remove()
        return tuple(x.flatten(0, 1)[packed.source_N] for x in (head_inputs[-1], logits_RLV))  # type: ignore[return-value]

    def _checked(self, reference: Model | None) -> Policy:
        if not isinstance(reference, Policy):
            raise ValueError("the exact KL needs a Policy as its reference")
        if reference.plain != self.plain or reference._head_weight.shape[0] != self._head_weight.shape[0]:
            raise ModelError(
                f"{reference.source}: for the exact KL, the reference must have the architecture and vocabulary of the "
                f"policy, {self.source}"
            )
        return reference

    @property
    def _head_weight(self) -> Tensor:
        weight: Tensor = self.model.get_output_embeddings().weight  # type: ignore[operator]
        return weight


def load_policy(
    path: str | Path,
    *,
    compute_dtype: AskedDtype = "float32",
    device: str = "auto",
    gradient_checkpointing: bool = False,
    compiled: bool = True,
    trust_remote_code: bool = False,
) -> Policy:
    """Load a causal language model with float32 weights from a local folder or a hub id. Only safetensors is supported.

    Dropout is disabled, so that sampling and training use the same distribution (ratio 1 when on-policy). A saved value
    head is loaded too. An adapter is merged into its base model.

    Raises:
        ModelError: no such model, no safetensors, missing weights, or no end-of-sequence token.
    """
    path = located(path)
    adapter = find_adapter(path)
    if adapter is not None and adapter.scores:
        raise ModelError(
            f"{path}: the adapter of a scorer, such as a reward model, not of a language model: it cannot generate"
        )
    base = path if adapter is None else adapter.base
    tokenizer = load_tokenizer(base, trust_remote_code=trust_remote_code)
    model, missing = load_weights(AutoModelForCausalLM, base, trust_remote_code=trust_remote_code)
    scores = [name for name in model.config.architectures or () if name.endswith("Classification")]
    if missing and scores:
        raise ModelError(f"{base}: a {scores[0]}, such as a reward model, not a language model: it cannot generate")
    refuse_missing(base, missing)
    if adapter is not None:
        merge_adapter(model, adapter)
    prepare(model, device=device, gradient_checkpointing=gradient_checkpointing, compiled=compiled)
    eos_ids = end_of_sequence_ids(model.generation_config, model.config, tokenizer)
    if not eos_ids:
        raise ModelError(
            f"{path}: no end-of-sequence token (eos_token_id) in generation_config.json, config.json or the tokenizer, "
            "so no completion would ever end: set one"
        )
    policy = Policy(
        model=model,
        tokenizer=tokenizer,
        eos_ids=eos_ids,
        pad_id=tokenizer.pad_token_id if tokenizer.pad_token_id is not None else min(eos_ids),
        context_length=context_length(model),
        compute_dtype=resolve_dtype(compute_dtype, model.device),
        source=path,
    )
    policy.load_value_head(path)
    return policy
