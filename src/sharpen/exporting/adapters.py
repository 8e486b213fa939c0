"""An adapter against its base and against the model that it is merged into."""

from __future__ import annotations

from torch import Tensor
from transformers import AutoModelForCausalLM

from sharpen.errors import ModelError, SharpenError
from sharpen.exporting.origin import Origin
from sharpen.exporting.probes import Difference, difference, plain_logprobs
from sharpen.exporting.report import Checks
from sharpen.models.load import load_weights, refuse_missing
from sharpen.models.policy import load_policy
from sharpen.models.progress_bars import without_load_report

EQUAL_NATS = 1e-3
"""Between a merged adapter and one beside its base, both in float32: what rounding x·(W + B·A) may make."""


def check_merged(origin: Origin, rows: list[list[int]], merged: list[Tensor], checks: Checks) -> None:
    """An adapter's folder, loaded by transformers with its adapter beside the base, equals the merged model."""
    if origin.adapter is None:
        return
    if origin.kind is not None:
        checks.not_checked.append("that the merged scorer equals base and adapter: only language models are compared")
        return
    try:
        with without_load_report():
            beside, missing = load_weights(AutoModelForCausalLM, origin.path, trust_remote_code=False)
    except (SharpenError, ImportError, RuntimeError) as error:
        # transformers' own reader of adapters, which is not needed for the export itself.
        checks.not_checked.append(
            f"that the merged model equals base and adapter: transformers cannot load it: {error}"
        )
        return
    refuse_missing(origin.path, {name for name in missing if ".lora_" in name})
    found = difference(plain_logprobs(beside.eval(), rows), merged)
    checks.hold(
        found.largest <= EQUAL_NATS,
        f"the merged model equals base and adapter side by side: log-probabilities differ by {found} nats",
    )


def check_trained(
    origin: Origin, rows: list[list[int]], policy: list[Tensor], rounding: Difference, checks: Checks
) -> None:
    """The model differs from its base, and by more than rounding its weights changed it."""
    what = "that the model differs from the one that it was trained from"
    if origin.kind is not None:
        checks.not_checked.append(f"{what}: that one has no scores to compare")
        return
    if origin.base is None or origin.base_problem is not None:
        checks.not_checked.append(f"{what}: {origin.base_problem or 'it is not known'}")
        return
    try:
        base = load_policy(origin.base, device="cpu", compiled=False)
    except SharpenError as error:
        # The base may have been moved or replaced since; the export does not need it.
        checks.not_checked.append(f"{what}: {error}")
        return
    if base.config.get_text_config().vocab_size < max(max(row) for row in rows) + 1:
        checks.not_checked.append(f"{what}: {origin.base} has a smaller vocabulary")
        return
    learned = difference(plain_logprobs(base.model, rows), policy)
    if learned.largest == 0:
        if origin.adapter is not None:
            raise ModelError(
                f"{origin.path}: the adapter changes nothing: on the texts compared the merged model equals its base, "
                f"{origin.base}, so nothing was written. Was it trained?"
            )
        checks.not_checked.append(f"{what}: on the texts compared it does not, it equals {origin.base}")
        return
    checks.checked.append(f"it differs from its base, {origin.base}: log-probabilities by {learned} nats")
    if rounding.mean >= learned.mean:
        checks.not_checked.append(
            "that the training survives the rounding: rounding the weights changes the log-probabilities by "
            f"{rounding.mean:.2g} nats on average, training by {learned.mean:.2g}; --dtype float32 keeps all of it"
        )
