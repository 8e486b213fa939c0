"""Models that give a score for a token: reward models and critics."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from transformers import (
    MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING,
    MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
)

from sharpen.batch import Batch, Need, Outputs
from sharpen.errors import ModelError
from sharpen.models.adapter_files import find_adapter
from sharpen.models.adapter_merge import merge_adapter
from sharpen.models.causal import refuse_not_causal
from sharpen.models.chat_template import take_template
from sharpen.models.dtype import AskedDtype, resolve_dtype
from sharpen.models.forward import MicrobatchLimits, microbatches
from sharpen.models.load import load_config, load_tokenizer, load_weights, located, prepare, refuse_missing
from sharpen.models.model import Model, scatter_to_batch
from sharpen.models.modules import PLAIN_ARCHITECTURES, ScorerModule, named_head
from sharpen.models.packing.pack import PackedRow, pack
from sharpen.models.padding import pad_sequences, pad_tokens
from sharpen.models.progress_bars import without_load_report
from sharpen.models.shape import context_length

Kind = Literal["sequence", "token"]

_CLASSES: dict[Kind, tuple[str, Any, Any]] = {
    "sequence": (
        "ForSequenceClassification",
        AutoModelForSequenceClassification,
        MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING,
    ),
    "token": ("ForTokenClassification", AutoModelForTokenClassification, MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING),
}


@dataclass(slots=True, kw_only=True)
class Scorer(Model):
    """A backbone with a linear head H → 1.

    ``kind`` is where its scores are read: at the last token of a sequence (an outcome reward model, saved as a sequence
    classifier with one label) or at any token (a process reward model or a critic, saved as a token classifier with one
    label).
    """

    root: ScorerModule
    kind: Kind

    @property
    def head(self) -> nn.Linear:
        return self.root.head

    @property
    def head_name(self) -> str:
        return self.root.head_name

    @property
    def task(self) -> str:
        return "SEQ_CLS" if self.kind == "sequence" else "TOKEN_CLS"

    def outputs(
        self,
        batch: Batch,
        rows: Sequence[PackedRow],
        temperature: float,
        needs: frozenset[Need],
        reference: Model | None = None,
    ) -> Outputs:
        """A score is the head's output at the token, a value that at the token before. ``temperature`` is ignored."""
        if not needs <= {"scores", "values"}:
            raise ValueError(f"a scorer has only scores and values, not {', '.join(sorted(needs))}")
        packed = pack(batch, rows, self.pad_id, padded=not self.plain, with_last="scores" in needs).to(self.device)
        found_N = self.root(packed, needs=needs)
        return Outputs({name: scatter_to_batch(x_N, packed, batch) for name, x_N in found_N.items()})


def load_scorer(
    path: str | Path,
    *,
    kind: Kind,
    compute_dtype: AskedDtype = "float32",
    device: str = "auto",
    gradient_checkpointing: bool = False,
    compiled: bool = True,
    trust_remote_code: bool = False,
) -> Scorer:
    """Load a scorer of either kind, or make one from a causal language model, from a local folder or a hub id.

    A new head is initialised to 0. From a scorer of the other kind, the head's weight is reused; a missing bias is 0,
    and a bias that the new head lacks is dropped: a constant shift, which no comparison depends on. Otherwise like
    ``load_policy``. transformers loads a saved scorer and computes the same scores, because the padding token ends no
    text (`sharpen.models.padding`). An adapter is merged into its base model.

    Raises:
        ModelError: no such model, no safetensors, missing weights, more than one label, no special token to pad with
            (kind "token"), or an architecture without such a classifier or whose head is not a single linear layer.
    """
    named = located(path)
    adapter = find_adapter(named)
    path = named if adapter is None else adapter.base
    tokenizer = load_tokenizer(path, trust_remote_code=trust_remote_code)
    take_template(tokenizer, adapter)
    config = load_config(path, trust_remote_code=trust_remote_code)
    ending, auto, known = _CLASSES[kind]
    if type(config) not in known and f"AutoModel{ending}" not in (getattr(config, "auto_map", None) or {}):
        raise ModelError(f"{path}: transformers has no {ending} for models of type {config.model_type}")
    found = _kind(config)
    if found is not None and config.num_labels != 1:
        raise ModelError(f"{path}: has {config.num_labels} labels; a scorer has one")
    with without_load_report():
        model, missing = load_weights(auto, path, trust_remote_code=trust_remote_code, num_labels=1)
    name, head = named_head(model)
    parts = {f"{name}.weight", f"{name}.bias"}
    refuse_missing(path, missing - parts)
    if found == kind:
        refuse_missing(path, missing)
    _zero_missing(head, missing=missing, name=name)
    if found is not None and f"{name}.weight" in missing:
        with without_load_report(), torch.no_grad():
            other, missing = load_weights(_CLASSES[found][1], path, trust_remote_code=trust_remote_code)
            refuse_missing(path, missing)
            head.weight.copy_(named_head(other)[1].weight)
    if adapter is not None:
        merge_adapter(model, adapter, name)
    pad_id = pad_sequences(path, model, tokenizer) if kind == "sequence" else pad_tokens(path, model, tokenizer)
    prepare(model, device=device, gradient_checkpointing=gradient_checkpointing, compiled=compiled)
    if model.config.model_type not in PLAIN_ARCHITECTURES:
        refuse_not_causal(path, model, tokenizer)
    return Scorer(
        root=ScorerModule(model, resolve_dtype(compute_dtype, model.device)),
        tokenizer=tokenizer,
        pad_id=pad_id,
        context_length=context_length(model.config, tokenizer),
        source=named,
        kind=kind,
    )


def saved_kind(path: str, *, trust_remote_code: bool = False) -> Kind | None:
    """The kind of scorer at a folder or hub id, which may be an adapter; None for a language model.

    Raises ModelError if there is no such model.
    """
    path = located(path)
    if (adapter := find_adapter(path)) is not None:
        if not adapter.scores:
            return None
        return "sequence" if adapter.config["task_type"] == "SEQ_CLS" else "token"
    return _kind(load_config(path, trust_remote_code=trust_remote_code))


@torch.no_grad()
def normalise_scores(scorer: Scorer, batch: Batch, limits: MicrobatchLimits) -> float:
    """Shift the scores to a mean of 0 at the last trained tokens of ``batch``, the demonstrations.

    Reward models are only determined up to a constant (InstructGPT, arXiv 2203.02155). The mean score m is subtracted
    from the head's bias. Without a bias, the weight becomes w + δ with δ·h̄ = −m, where h̄ is the mean of the B last
    hidden states and δ changes the differences between scores least: argmin δᵀΣδ = −m Σ⁻¹h̄ / (h̄ᵀΣ⁻¹h̄). Σ is the
    states' covariance plus 1 % of its mean variance on the diagonal, for directions that B states do not span.

    Returns m. Raises ValueError if no token of the batch is trained.
    """
    hidden_EH = _last_hidden_states(scorer, batch, limits)
    head = scorer.head
    weight_H = head.weight[0].double().cpu()
    mean_H = hidden_EH.mean(dim=0)
    mean = float(mean_H @ weight_H) + (0.0 if head.bias is None else head.bias.item())
    if head.bias is not None:
        head.bias.sub_(mean)
        return mean
    centred_EH = hidden_EH - mean_H
    covariance_HH = centred_EH.T @ centred_EH / len(hidden_EH)
    ridge = 0.01 * covariance_HH.diagonal().mean().item() or 1.0
    solved_H = torch.linalg.solve(covariance_HH + ridge * torch.eye(len(mean_H), dtype=torch.float64), mean_H)
    head.weight[0].sub_((mean / (mean_H @ solved_H) * solved_H).to(head.weight))
    return mean


def _last_hidden_states(scorer: Scorer, batch: Batch, limits: MicrobatchLimits) -> Tensor:
    """Hidden states at the last trained token of each trajectory that has one: [E, H], float64 on the CPU."""
    if not batch.mask_ET.any():
        raise ValueError("the batch has no trained token to normalise the scores on")
    position_T = torch.arange(batch.mask_ET.shape[1])
    last_E = (batch.mask_ET * position_T).amax(dim=1)
    last: list[Tensor] = []
    for rows in microbatches(scorer, batch, limits):
        packed = pack(batch, rows, scorer.pad_id, padded=not scorer.plain, with_last=True).to(scorer.device)
        hidden_NH = scorer.root(packed, needs=frozenset({"head_inputs"}))["head_inputs"].double().cpu()
        last.append(hidden_NH[packed.t_N.cpu() == last_E[packed.e_N.cpu()]])
    return torch.cat(last)


def _kind(config: Any) -> Kind | None:
    """The kind of scorer, if any, by the architectures in the configuration."""
    for kind, (ending, _, _) in _CLASSES.items():
        if any(name.endswith(ending) for name in config.architectures or ()):
            return kind
    return None


def _zero_missing(head: nn.Linear, *, missing: set[str], name: str) -> None:
    """Zero the parts of the head that transformers initialised at random."""
    with torch.no_grad():
        for part, tensor in head.named_parameters():
            if f"{name}.{part}" in missing:
                tensor.zero_()
