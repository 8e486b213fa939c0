"""The numbers behind the expected memory, of models small enough to count by hand."""

from pathlib import Path

import pytest

from sharpen.launch.memory import largest_microbatch, of_length
from sharpen.methods import resolve_method
from sharpen.models.forward import MicrobatchLimits
from sharpen.models.policy import load_policy
from sharpen.rollout.local.engine import LocalEngine
from sharpen.training.microbatch import activation_bytes
from tiny_models import loaded_policy
from tiny_runs import tiny_start_model

GRPO = resolve_method("grpo")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_start_model(tmp_path_factory.mktemp("numbers") / "model")


def test_a_rollout_holds_each_prompt_once_and_every_completion(folder: Path) -> None:
    """Two layers, keys and values of 16 numbers of 4 bytes: 256 bytes per token."""
    engine = LocalEngine(load_policy(folder, device="cpu"))
    # 3 prompts padded to 7 tokens, and 4 completions of 5 tokens for each.
    assert engine.memory_for([7, 2, 4], 4, 5).kv_bytes == 256 * (3 * 7 + 12 * 5)
    # Half of the 12 at once: the rows of two prompts.
    engine = LocalEngine(load_policy(folder, device="cpu"), max_sequences=6)
    assert engine.memory_for([7, 2, 4], 4, 5).kv_bytes == 256 * (2 * 7 + 6 * 5)


def test_the_budget_bounds_keys_and_values(folder: Path) -> None:
    engine = LocalEngine(load_policy(folder, device="cpu"), kv_gib=16 * 1024 / 2**30)
    assert engine.memory_for([7], 64, 5).kv_bytes == 16 * 1024


def test_an_own_forward_stores_the_prompt_with_every_completion(tmp_path: Path) -> None:
    """gpt2 of two layers: 2 × 2 × 16 numbers of 4 bytes per token."""
    engine = LocalEngine(loaded_policy(tmp_path, "gpt2"))
    assert engine.memory_for([7, 2], 3, 5).kv_bytes == 256 * 6 * (7 + 5)


def test_the_largest_microbatch_is_the_one_that_the_step_cuts(folder: Path) -> None:
    """Prompts of 10 and 4 tokens with 3 completions of 5; a micro-batch of 25 tokens holds the first group only."""
    policy = load_policy(folder, device="cpu")
    groups = of_length([4, 10], 3, 5)
    vocabulary, hidden = policy.root.head_shape
    found = largest_microbatch(policy, GRPO.objectives()[0], [groups], MicrobatchLimits(25, True))
    assert found.activation_bytes == 25 * activation_bytes(policy)
    assert found.logit_bytes == 4 * vocabulary * 15
    assert found.head_gradient_bytes == 2 * 4 * vocabulary * hidden
    assert not found.only
    # Both groups together, as far as their last trained token.
    found = largest_microbatch(policy, GRPO.objectives()[0], [groups], MicrobatchLimits(100, True))
    assert found.activation_bytes == (25 + 19) * activation_bytes(policy)
    assert found.only


def test_without_shared_prompts_each_completion_brings_its_own(folder: Path) -> None:
    policy = load_policy(folder, device="cpu")
    found = largest_microbatch(policy, GRPO.objectives()[0], [of_length([4], 3, 5)], MicrobatchLimits(100, False))
    assert found.activation_bytes == 3 * 9 * activation_bytes(policy)


def test_padded_rows_count_their_padding(tmp_path: Path) -> None:
    """gpt2 has rows of a prompt and a completion, of which the longest has 15 tokens; all positions have logits."""
    policy = loaded_policy(tmp_path, "gpt2")
    groups = of_length([4, 10], 1, 5)
    found = largest_microbatch(policy, GRPO.objectives()[0], [groups], MicrobatchLimits(100, True))
    vocabulary = policy.root.head_shape[0]
    assert found.activation_bytes == 2 * 15 * activation_bytes(policy)
    assert found.logit_bytes == 4 * vocabulary * (30 + 2 * 10)


def test_bfloat16_keeps_a_rounded_copy_of_the_matrices_of_a_pass(folder: Path) -> None:
    """Two layers of four 16 × 16 and three 16 × 24 matrices, and the head."""
    policy = load_policy(folder, device="cpu", compute_dtype="bfloat16")
    found = largest_microbatch(policy, GRPO.objectives()[0], [of_length([4], 1, 5)], MicrobatchLimits(100, True))
    matrices = 2 * (4 * 16 * 16 + 3 * 16 * 24) + 16 * policy.root.head_shape[0]
    assert found.cast_bytes == 2 * matrices
    assert found.logit_bytes == 2 * policy.root.head_shape[0] * 5
    # Decoding makes as large a copy.
    memory = LocalEngine(policy).memory_for([4], 1, 5)
    assert memory.copy_bytes + memory.kept_copy_bytes == 2 * matrices
