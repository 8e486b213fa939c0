"""Every kind of rotary embedding: each row is computed as the model's own forward computes it alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from one_thread import one_thread as one_thread
from sharpen.batch import Batch
from sharpen.data.collate import collate
from sharpen.errors import RecipeError
from sharpen.launch.run import start
from sharpen.models.forward import MicrobatchLimits, all_outputs
from sharpen.models.policy import Policy
from sharpen.models.rope import longrope_switch
from sharpen.rollout.engine import Sampling
from sharpen.rollout.generation import generate
from sharpen.rollout.local.engine import LocalEngine
from sharpen.types import Group
from tiny_models import make_batch, make_prompt, prefix_of_each, ragged_batch, tiny_folder, tiny_policy
from tiny_runs import digits, tiny_recipe

ORIGINAL = 12
"""The longest row that the short factors are for. The rows of `ragged_batch` have 2 to 17 tokens."""
LONGROPE = {
    "rope_type": "longrope",
    "short_factor": [1.0, 1.2],
    "long_factor": [2.0, 7.0],
    "factor": 128 / ORIGINAL,
    "original_max_position_embeddings": ORIGINAL,
}
LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "default": ("llama", {"rope_type": "default"}),
    "linear": ("llama", {"rope_type": "linear", "factor": 4.0}),
    "dynamic": ("llama", {"rope_type": "dynamic", "factor": 4.0}),
    "yarn": ("llama", {"rope_type": "yarn", "factor": 8.0, "original_max_position_embeddings": 16}),
    "llama3": ("llama", {**LLAMA3, "original_max_position_embeddings": 16}),
    "proportional": ("llama", {"rope_type": "proportional", "partial_rotary_factor": 0.5}),
    "longrope": ("llama", LONGROPE),
    "longrope, padded": ("phi3", LONGROPE),
    "one for each type of layer": (
        "gemma3_text",
        {
            "sliding_attention": {"rope_type": "default", "rope_theta": 100.0},
            "full_attention": {"rope_type": "linear", "factor": 4.0, "rope_theta": 10_000.0},
        },
    ),
    "longrope for one type of layer": (
        "gemma3_text",
        {
            "sliding_attention": {"rope_type": "default", "rope_theta": 100.0},
            "full_attention": {**LONGROPE, "rope_theta": 10_000.0},
        },
    ),
}


def policy_of(name: str) -> Policy:
    architecture, rope = KINDS[name]
    settings: dict[str, Any] = {"rope_parameters": {"rope_theta": 10_000.0, **rope}}
    if architecture == "gemma3_text":
        settings = {"rope_parameters": rope, "sliding_window": 4}
    if architecture == "phi3":
        settings["original_max_position_embeddings"] = ORIGINAL
    return tiny_policy(architecture, **settings)


def own_by_row(policy: Policy, batch: Batch) -> Tensor:
    """log π of the trained tokens, from a forward of each sequence up to its last trained token, alone: [E, T]."""
    rows = []
    for tokens, prefix, mask in zip(batch.tokens_ET, prefix_of_each(batch), batch.mask_ET, strict=True):
        row = torch.zeros(len(tokens))
        if mask.any():
            n = int(mask.nonzero()[-1]) + 1
            ids = torch.cat([prefix, tokens[: n - 1]])[None]
            logits = policy.model(input_ids=ids, use_cache=False).logits[0, len(prefix) - 1 :]
            own = logits.log_softmax(dim=-1)[torch.arange(n), tokens[:n]]
            row = torch.cat([own, row[n:]]) * mask
        rows.append(row)
    return torch.stack(rows)


@pytest.mark.parametrize("name", KINDS)
@torch.no_grad()
def test_a_row_does_not_depend_on_what_else_is_in_its_microbatch(name: str) -> None:
    policy, batch = policy_of(name), ragged_batch(20)
    own_ET = own_by_row(policy, batch)
    for tokens, shared in ((1, False), (40, True), (10_000, True), (10_000, False)):
        limits = MicrobatchLimits(tokens, shared)
        found_ET = all_outputs(policy, batch, "logprobs", 1.0, limits)
        torch.testing.assert_close(found_ET, own_ET, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", KINDS)
@torch.no_grad()
def test_the_sampler_draws_what_the_models_own_forward_gives(name: str) -> None:
    policy = policy_of(name)
    prompts = [make_prompt(policy, text) for text in ("1+2=", "7", "9-9", "00000")]
    sampling = Sampling(ORIGINAL - 5)
    groups = generate(LocalEngine(policy), prompts, [range(10 * i, 10 * i + 4) for i in range(4)], sampling, 3)
    batch = collate([Group(p, c) for p, c in zip(prompts, groups, strict=True)])
    own_ET = own_by_row(policy, batch)
    torch.testing.assert_close(batch["rollout_logprobs"], own_ET, rtol=0, atol=1e-5)
    trained_ET = all_outputs(policy, batch, "logprobs", 1.0, MicrobatchLimits(10_000, True))
    torch.testing.assert_close(trained_ET, own_ET, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", [name for name in KINDS if "longrope" in name])
def test_longrope_is_sampled_up_to_the_original_context(name: str) -> None:
    """The next token would rotate all earlier ones anew, also those whose keys are in the cache."""
    policy = policy_of(name)
    assert longrope_switch(policy.config) == ORIGINAL
    engine = LocalEngine(policy)
    assert (engine.context_length, policy.context_length) == (ORIGINAL, 128)
    with pytest.raises(RecipeError, match=r"4 tokens and 9 new ones.*longrope \(12\).*max_new_tokens"):
        generate(engine, [make_prompt(policy, "1+2=")], [[0]], Sampling(9), 3)


def test_a_run_that_would_sample_beyond_it_ends_before_its_first_step(tmp_path: Path) -> None:
    model = tiny_folder(tmp_path / "model", rope_parameters={"rope_theta": 10_000.0, **LONGROPE})
    changes = {"evaluation": {"every": 0}, "checkpoint": {"best": None}, "rollout": {"max_new_tokens": 9}}
    with pytest.raises(RecipeError, match=r"row .*4 tokens and rollout\.max_new_tokens is 9.*longrope \(12\)"):
        start(tiny_recipe(tmp_path / "run", model, "grpo", reward=digits, **changes))
    assert not (tmp_path / "run" / "metrics.jsonl").exists()


@torch.no_grad()
def test_the_factors_matter() -> None:
    """Two rows of which one is beyond the original context: the short one must not rotate as the long one does."""
    policy = policy_of("longrope")
    tokens_ET = torch.randint(3, 20, (2, 16), generator=torch.Generator().manual_seed(0))
    mask_ET = torch.ones(2, 16, dtype=torch.bool)
    mask_ET[0, 6:] = False
    batch = make_batch(
        prefixes=[torch.tensor([5, 6])], group_E=torch.tensor([0, 0]), tokens_ET=tokens_ET, mask_ET=mask_ET
    )
    ids = torch.cat([torch.tensor([5, 6]), tokens_ET[0, :5]])
    rotated_long = policy.model(input_ids=torch.cat([ids, tokens_ET[1]])[None], use_cache=False).logits[0, 1:7]
    wrong = rotated_long.log_softmax(dim=-1)[torch.arange(6), tokens_ET[0, :6]]
    found_ET = all_outputs(policy, batch, "logprobs", 1.0, MicrobatchLimits(10_000, True))
    assert (found_ET[0, :6] - wrong).abs().max() > 0.1
    torch.testing.assert_close(found_ET, own_by_row(policy, batch), rtol=0, atol=1e-5)
