"""The policy: a causal language model with its tokenizer and optional value head."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
)

from sharpen.batch import Batch, Need, Outputs
from sharpen.errors import ModelError
from sharpen.models.adapter import NAME
from sharpen.models.adapter_files import find_adapter
from sharpen.models.adapter_merge import merge_adapter
from sharpen.models.causal import refuse_not_causal
from sharpen.models.chat_template import take_template
from sharpen.models.dtype import AskedDtype, SavedDtype, resolve_dtype
from sharpen.models.ends import end_of_sequence_ids, require_end, saved_ends, saved_generation_config, write_ends
from sharpen.models.load import (
    load_config,
    load_tokenizer,
    load_weights,
    located,
    prepare,
    refuse_missing,
)
from sharpen.models.model import Model, scatter_to_batch
from sharpen.models.modules import PLAIN_ARCHITECTURES, PolicyModule, ReferenceHead
from sharpen.models.packing.pack import PackedBatch, PackedRow, pack
from sharpen.models.shape import context_length
from sharpen.models.vocabulary import check_end, embedding_rows, name_end, padding_of

VALUE_HEAD = "value_head.safetensors"


@dataclass(slots=True, kw_only=True)
class Policy(Model):
    """A causal language model and its tokenizer. With a ``value_head`` it is also the critic, on a shared backbone.

    A policy that ``shares_root`` is a frozen reference: the root of the policy that is trained, run with another
    adapter, or with none if it has no ``adapter``.
    """

    root: PolicyModule
    eos_ids: frozenset[int]
    shares_root: bool = False

    @property
    def value_head(self) -> nn.Linear | None:
        return None if self.shares_root else self.root.value_head

    def end_at(self, token_ids: Collection[int]) -> None:
        """Let these tokens end a completion too: the engine stops at them, and a saved folder names them."""
        self.eos_ids |= frozenset(token_ids)

    def add_value_head(self) -> None:
        """Add a head H → 1, initialised to 0."""
        self.root.add_value_head()

    def load_value_head(self, folder: str | Path) -> None:
        """Load the value head from a folder that a policy was saved to, if there is one."""
        if (Path(folder) / VALUE_HEAD).is_file():
            self.root.add_value_head().load_state_dict(load_file(Path(folder) / VALUE_HEAD))

    @property
    def task(self) -> str:
        return "CAUSAL_LM"

    def parameters(self) -> list[nn.Parameter]:
        return [] if self.shares_root else Model.parameters(self)

    def save(self, folder: Path, dtype: SavedDtype = "float32", *, exact: bool = False) -> None:
        """Write a Hugging Face folder, with the value head in a file of its own, always in float32."""
        Model.save(self, folder, dtype, exact=exact)
        write_ends(folder, self.eos_ids, self.model)
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
        found_N = self.root(
            packed,
            temperature=temperature,
            needs=needs,
            reference=self._checked(reference)._as_reference(packed, self) if "exact_kl" in needs else None,
            adapter=self._adapter_name,
        )
        return Outputs({name: scatter_to_batch(x_N, packed, batch) for name, x_N in found_N.items()})

    @property
    def _adapter_name(self) -> str | None:
        """What the root runs with: its own adapter, if it has one, unless this policy is another view of it."""
        if not self.shares_root:
            return NAME
        return None if self.adapter is None else self.adapter.name

    @torch.no_grad()
    def _as_reference(self, packed: PackedBatch, policy: Policy) -> ReferenceHead:
        """This policy's head for the exact KL of ``policy``, which calls it chunk by chunk within its own forward."""
        needs: frozenset[Literal["head_inputs"]] = frozenset({"head_inputs"})
        inputs = self.root(packed.to(self.device), needs=needs, adapter=self._adapter_name)["head_inputs"]

        @torch.no_grad()
        def logits(chunk: Tensor) -> Tensor:
            # A root that is being called is not called again: its head is at hand there.
            found = self.root.logits(chunk) if self.root is policy.root else self.root(head_inputs=chunk)["logits"]
            return found.to(policy.device)

        return inputs, logits

    def _checked(self, reference: Model | None) -> Policy:
        if not isinstance(reference, Policy):
            raise ValueError("the exact KL needs a Policy as its reference")
        if reference.plain != self.plain or reference.root.head_shape[0] != self.root.head_shape[0]:
            raise ModelError(
                f"{reference.source}: for the exact KL, the reference must have the architecture and vocabulary of the "
                f"policy, {self.source}"
            )
        return reference


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
        ModelError: no such model, no safetensors, missing weights, or no end-of-sequence token that has an
            embedding.
    """
    path = located(path)
    adapter = find_adapter(path)
    if adapter is not None and adapter.scores:
        raise ModelError(
            f"{path}: the adapter of a scorer, such as a reward model, not of a language model: it cannot generate"
        )
    base = path if adapter is None else adapter.base
    tokenizer = load_tokenizer(base, trust_remote_code=trust_remote_code)
    take_template(tokenizer, adapter)
    auto = _auto_class(load_config(base, trust_remote_code=trust_remote_code))
    model, missing = load_weights(auto, base, trust_remote_code=trust_remote_code)
    scores = [name for name in model.config.architectures or () if name.endswith("Classification")]
    if missing and scores:
        raise ModelError(f"{base}: a {scores[0]}, such as a reward model, not a language model: it cannot generate")
    refuse_missing(base, missing)
    if adapter is not None:
        merge_adapter(model, adapter)
    prepare(model, device=device, gradient_checkpointing=gradient_checkpointing, compiled=compiled)
    if model.config.model_type not in PLAIN_ARCHITECTURES:
        refuse_not_causal(path, model, tokenizer)
    # transformers passes over a file that it cannot read.
    saved_generation_config(base)
    eos_ids = end_of_sequence_ids(model.generation_config, model.config, tokenizer)
    if adapter is not None:
        eos_ids |= saved_ends(path)
    require_end(path, eos_ids)
    check_end(path, model, tokenizer)
    name_end(tokenizer, eos_ids)
    policy = Policy(
        root=PolicyModule(model, resolve_dtype(compute_dtype, model.device)),
        tokenizer=tokenizer,
        eos_ids=eos_ids,
        pad_id=padding_of(tokenizer, eos_ids, embedding_rows(model)),
        context_length=context_length(model.config, tokenizer),
        source=path,
    )
    policy.load_value_head(path)
    return policy


def _auto_class(config: Any) -> Any:
    """transformers' class for a configuration. Some models that also read images have none for text alone."""
    reads_images = type(config) in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING
    only = reads_images and type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING
    return AutoModelForImageTextToText if only else AutoModelForCausalLM
