"""Statistics of the tokens of a step."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from sharpen.batch import Batch, Outputs
from sharpen.functional.losses.kl import k3
from sharpen.functional.losses.ratio import log_ratio, ratio
from sharpen.methods import LossTerms


class TokenStats:
    """Collects figures of tokens and trajectories over the micro-batches of a step.

    They stay on the model's device until all are there, so that it never waits for one.
    """

    def __init__(self) -> None:
        self._figures: dict[str, list[tuple[Tensor, Tensor]]] = {}

    def add(
        self, batch: Batch, outputs: Outputs, terms: LossTerms, *, first_update: bool = True, on_policy: bool = True
    ) -> None:
        """Add a micro-batch.

        During the ``first_update`` on an ``on_policy`` batch the weights are those that drew it, and the policy's ratio
        to itself is 1 up to rounding. ``ratio/noise`` measures that rounding, and that between rollout and trainer.
        """
        mask_ET = batch.mask_ET

        def keep(name: str, value_ET: Tensor) -> None:
            self._keep(name, value_ET, mask_ET)

        if "logprobs" in outputs:
            keep("logprob", outputs["logprobs"])
            if "old_logprobs" in batch:
                log_ratio_ET = log_ratio(outputs["logprobs"].detach(), batch["old_logprobs"]) * mask_ET
                keep("ratio", ratio(log_ratio_ET))
                if first_update and on_policy:
                    self._keep("noise/trainer", *_log_sequence_ratio(log_ratio_ET, mask_ET))
                if "advantages" in batch:
                    keep("advantage", batch["advantages"])
                if "rollout_logprobs" in batch:
                    mismatch_ET = (batch["old_logprobs"] - batch["rollout_logprobs"]) * mask_ET
                    keep("mismatch", mismatch_ET.abs())
                    if on_policy:
                        self._keep("noise/rollout", *_log_sequence_ratio(mismatch_ET, mask_ET))
            if "ref_logprobs" in batch:
                keep("kl", k3(outputs["logprobs"], batch["ref_logprobs"]))
        if "exact_kl" in outputs:
            keep("kl", outputs["exact_kl"])
        elif "kl" in batch:
            keep("kl", batch["kl"])
        if "entropy" in outputs:
            keep("entropy", outputs["entropy"])
        if "values" in outputs and "targets" in batch:
            keep("value", outputs["values"])
            keep("target", batch["targets"])
        if terms.unclipped_ET is not None:
            keep("clipped", ~terms.unclipped_ET)
        for name, figure_E in terms.figures.items():
            self._keep(f"figure/{name}", figure_E, ~figure_E.isnan() & mask_ET.any(dim=1))

    def _keep(self, name: str, values: Tensor, which: Tensor) -> None:
        self._figures.setdefault(name, []).append((values.detach().flatten(), which.flatten()))

    def metrics(self, join: Callable[[Tensor], Tensor] = lambda tensor: tensor) -> dict[str, float]:
        """``join`` adds the figures of other ranks to a tensor of this one's."""
        values = {name: join(_numbers(parts)) for name, parts in self._figures.items()}
        values = {name: numbers for name, numbers in values.items() if len(numbers)}
        result: dict[str, float] = {}

        def mean(name: str, key: str) -> None:
            if name in values:
                result[key] = values[name].mean().item()

        mean("logprob", "logprob")
        mean("entropy", "entropy")
        mean("kl", "kl")
        mean("clipped", "clip_fraction")
        if "ratio" in values:
            result["ratio/mean"] = values["ratio"].mean().item()
            # kthvalue, because torch.quantile is limited to 16 million elements.
            rank = math.ceil(0.999 * (len(values["ratio"]) - 1)) + 1
            result["ratio/p99.9"] = values["ratio"].kthvalue(rank).values.item()
        if "advantage" in values:
            result["advantage/mean"] = values["advantage"].mean().item()
            result["advantage/abs"] = values["advantage"].abs().mean().item()
        if "mismatch" in values:
            result["mismatch/mean"] = values["mismatch"].mean().item()
            result["mismatch/max"] = values["mismatch"].max().item()
        noises = [values[name].mean().item() for name in ("noise/trainer", "noise/rollout") if name in values]
        if noises:
            result["ratio/noise"] = max(noises)
        if "value" in values:
            error, target = values["target"] - values["value"], values["target"]
            result["value/mean"] = values["value"].mean().item()
            spread = target.var(correction=0).item()
            if spread > 0:
                result["value/explained_variance"] = 1 - error.var(correction=0).item() / spread
        for name in values:
            if name.startswith("figure/"):
                mean(name, name.removeprefix("figure/"))
        return result


def _numbers(parts: list[tuple[Tensor, Tensor]]) -> Tensor:
    """The figures that count, on the CPU: two transfers for all micro-batches together."""
    values, which = (torch.cat(tensors).cpu() for tensors in zip(*parts, strict=True))
    return values[which].double()


def _log_sequence_ratio(log_ratio_ET: Tensor, mask_ET: Tensor) -> tuple[Tensor, Tensor]:
    """The magnitude of the log of GSPO's ratio, the mean over each trajectory's tokens, and which have any, [E]."""
    lengths_E = mask_ET.sum(dim=1)
    return (log_ratio_ET.sum(dim=1) / lengths_E).abs(), lengths_E > 0
