"""A policy's outputs for a batch, against its own forward pass one sequence at a time."""

from itertools import pairwise
from pathlib import Path

import pytest
import torch
from torch import Tensor

from oracles import distributions
from sharpen.batch import Batch
from sharpen.errors import ModelError
from sharpen.models.packing.microbatches import Planner
from sharpen.models.policy import Policy, load_policy
from tiny_models import (
    assert_same_gradients,
    gradients,
    loaded_policy,
    own_logits,
    own_logprobs,
    prefix_of_each,
    ragged_batch,
    tiny_policy,
    weighted,
)

TEMPERATURE = 1.4
ALL = frozenset({"logprobs", "entropy", "exact_kl", "values"})
MODELS = {
    "llama": ("llama", {}),
    "qwen3": ("qwen3", {}),
    "gpt2": ("gpt2", {}),
    "opt": ("opt", {}),
    "gemma3": ("gemma3_text", {"sliding_window": 4}),
    "mixtral": ("mixtral", {"experts_implementation": "eager"}),
    "qwen2_moe": ("qwen2_moe", {"experts_implementation": "eager"}),
}


def with_values(policy: Policy) -> Policy:
    policy.add_value_head()
    policy.value_head.to(policy.model.dtype)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in policy.value_head.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return policy


def own_values(policy: Policy, batch: Batch) -> Tensor:
    """w · h + b with h the last hidden state at the position before each token."""
    rows = []
    for tokens, prefix in zip(batch.tokens_ET, prefix_of_each(batch), strict=True):
        ids = torch.cat([prefix, tokens])[None]
        states = policy.model(input_ids=ids, output_hidden_states=True).hidden_states[-1][0, len(prefix) - 1 : -1]
        rows.append(states @ policy.value_head.weight[0] + policy.value_head.bias)
    return torch.stack(rows)


def expected_terms(policy: Policy, reference: Policy, batch: Batch) -> dict[str, Tensor]:
    logprobs_BTV = torch.stack(own_logits(policy.model, batch)).div(TEMPERATURE).log_softmax(-1)
    with torch.no_grad():
        ref_BTV = torch.stack(own_logits(reference.model, batch)).div(TEMPERATURE).log_softmax(-1)
    p_BTV = logprobs_BTV.exp()
    return {
        "logprobs": logprobs_BTV.gather(2, batch.tokens_ET[..., None]).squeeze(2),
        "entropy": -(p_BTV * logprobs_BTV).sum(-1),
        "exact_kl": (p_BTV * (logprobs_BTV - ref_BTV)).sum(-1),
        "values": own_values(policy, batch),
    }


def upstream(name: str, batch: Batch) -> Tensor:
    return weighted(batch) * {"logprobs": 1.0, "entropy": -2.0, "exact_kl": 3.0, "values": 0.5}[name]


@pytest.mark.parametrize("tokens", [1, 40, 10_000])
@pytest.mark.parametrize("name", MODELS)
def test_every_output_and_its_gradient_equal_the_models_own_forward(name: str, tokens: int) -> None:
    architecture, settings = MODELS[name]
    policy = with_values(tiny_policy(architecture, dtype=torch.float64, **settings))
    reference = tiny_policy(architecture, dtype=torch.float64, seed=7, **settings)
    batch = ragged_batch(policy.config.vocab_size)
    expected = expected_terms(policy, reference, batch)
    sum((upstream(n, batch) * term).sum() for n, term in expected.items()).backward()
    slopes = gradients(policy.model) | {f"value_head.{n}": g for n, g in gradients(policy.value_head).items()}

    policy.model.zero_grad()
    policy.value_head.zero_grad()
    found = {n: torch.zeros(batch.tokens_ET.shape, dtype=torch.float64) for n in ALL}
    for rows in Planner().plan(
        batch, tokens_per_microbatch=tokens, shared=policy.plain, cost=policy.cost, padded=not policy.plain
    ):
        outputs = policy.outputs(batch, rows, TEMPERATURE, ALL, reference)
        assert outputs.keys() == ALL
        terms = dict(outputs)
        inside_ET = torch.zeros_like(batch.mask_ET)
        inside_ET[[b for row in rows for b in row.samples]] = True
        for term in terms.values():
            assert not term[~(inside_ET & batch.mask_ET)].any()
        sum((upstream(n, batch) * term).sum() for n, term in terms.items()).backward()
        found = {n: found[n] + term.detach() for n, term in terms.items()}
    for n, term in expected.items():
        torch.testing.assert_close(found[n], term.detach() * batch.mask_ET, rtol=2e-6, atol=2e-5)
    again = gradients(policy.model) | {f"value_head.{n}": g for n, g in gradients(policy.value_head).items()}
    assert_same_gradients(again, slopes, 5e-6)
    assert gradients(reference.model) == {}


@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_entropy_and_kl_of_a_token_by_hand(architecture: str) -> None:
    policy, reference = (tiny_policy(architecture, dtype=torch.float64, seed=seed) for seed in (0, 7))
    batch = ragged_batch(policy.config.vocab_size)
    (rows,) = Planner().plan(
        batch, tokens_per_microbatch=10_000, shared=policy.plain, cost=policy.cost, padded=not policy.plain
    )
    outputs = policy.outputs(batch, rows, TEMPERATURE, frozenset({"entropy", "exact_kl"}), reference)
    ours, theirs = own_logits(policy.model, batch)[5], own_logits(reference.model, batch)[5]
    assert batch.mask_ET[5, 1]
    p, q = (distributions.softmax(logits[1].tolist(), TEMPERATURE) for logits in (ours, theirs))
    assert outputs["entropy"][5, 1].item() == pytest.approx(distributions.entropy(p), rel=1e-5)
    assert outputs["exact_kl"][5, 1].item() == pytest.approx(distributions.kl(p, q), rel=1e-5)


@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_only_needed_outputs_exist_and_entropy_has_a_gradient_only_if_needed(architecture: str) -> None:
    policy = with_values(tiny_policy(architecture))
    batch = ragged_batch(policy.config.vocab_size)
    (rows,) = Planner().plan(
        batch, tokens_per_microbatch=10_000, shared=policy.plain, cost=policy.cost, padded=not policy.plain
    )

    def present(*needs: str) -> set[str]:
        return set(policy.outputs(batch, rows, 1.0, frozenset(needs), policy))

    assert present("values") == {"values"}
    assert present("exact_kl") == {"exact_kl"}
    assert present("entropy") == {"entropy"}
    assert present("logprobs", "values") == {"logprobs", "entropy", "values"}
    needs = {"logprobs"}
    shown = policy.outputs(batch, rows, 1.0, frozenset(needs))
    trained = policy.outputs(batch, rows, 1.0, frozenset(needs | {"entropy"}))
    assert shown["logprobs"].requires_grad
    assert not shown["entropy"].requires_grad
    assert trained["entropy"].requires_grad
    torch.testing.assert_close(shown["entropy"], trained["entropy"].detach())


def test_outputs_that_are_not_available_are_errors() -> None:
    policy = tiny_policy()
    batch = ragged_batch(policy.config.vocab_size)
    (rows,) = Planner().plan(batch, tokens_per_microbatch=10_000, shared=True, cost=policy.cost, padded=False)
    with pytest.raises(ValueError, match="no value head"):
        policy.outputs(batch, rows, 1.0, frozenset({"values"}))
    with pytest.raises(ValueError, match="Scorer"):
        policy.outputs(batch, rows, 1.0, frozenset({"scores"}))
    with pytest.raises(ValueError, match="needs a Policy as its reference"):
        policy.outputs(batch, rows, 1.0, frozenset({"exact_kl"}))
    with pytest.raises(ModelError, match="must have the architecture and vocabulary"):
        policy.outputs(batch, rows, 1.0, frozenset({"exact_kl"}), tiny_policy("gpt2"))


@pytest.mark.parametrize("architecture", ["llama", "qwen2_moe"])
def test_bfloat16_differs_by_its_rounding_only(architecture: str) -> None:
    exact = with_values(tiny_policy(architecture))
    rounded = with_values(tiny_policy(architecture, compute_dtype="bfloat16"))
    reference = tiny_policy(architecture, seed=7)
    batch = ragged_batch(exact.config.vocab_size)
    (rows,) = Planner().plan(
        batch, tokens_per_microbatch=10_000, shared=exact.plain, cost=exact.cost, padded=not exact.plain
    )
    one, other = (p.outputs(batch, rows, 1.0, ALL, reference) for p in (exact, rounded))
    for name in sorted(ALL):
        mine, theirs = other[name], one[name]
        assert mine.dtype == torch.float32
        error_ET = (mine - theirs).abs()
        # The numbers of bfloat16 lie 2⁻⁸ of their size apart.
        assert 0 < error_ET.max() < 8 * 2**-8 * theirs.abs().max()


def test_a_new_value_head_gives_0_and_is_trained_with_the_policy() -> None:
    policy = tiny_policy()
    before, state = len(policy.parameters()), torch.get_rng_state()
    policy.add_value_head()
    assert torch.equal(torch.get_rng_state(), state)
    assert policy.value_head.weight.tolist() == [[0.0] * 16]
    assert policy.value_head.bias.tolist() == [0.0]
    assert policy.value_head.weight.dtype == torch.float32
    assert len(policy.parameters()) == before + 2
    assert policy.parameters()[-1] is policy.value_head.bias
    policy.model.requires_grad_(False)
    assert len(policy.parameters()) == 2


def test_a_value_head_is_saved_beside_an_ordinary_model_and_comes_back(tmp_path: Path) -> None:
    policy = with_values(loaded_policy(tmp_path / "model"))
    policy.save(tmp_path / "again")
    again = load_policy(tmp_path / "again", device="cpu")
    assert torch.equal(again.value_head.weight, policy.value_head.weight)
    assert torch.equal(again.value_head.bias, policy.value_head.bias)
    assert again.value_head.weight.requires_grad
    ours, theirs = policy.model.state_dict(), again.model.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    again.root.value_head = None
    again.save(tmp_path / "again")
    assert load_policy(tmp_path / "again", device="cpu").value_head is None


@pytest.mark.parametrize("architecture", ["mixtral", "qwen2_moe"])
def test_a_mixture_of_experts_loads_and_learns_what_it_is_trained_on(architecture: str, tmp_path: Path) -> None:
    policy = loaded_policy(tmp_path / "model", architecture)
    assert not policy.plain
    batch = ragged_batch(policy.config.vocab_size)
    own_ET = torch.stack(own_logprobs(policy.model, batch, 1.0)).detach() * batch.mask_ET
    (rows,) = Planner().plan(batch, tokens_per_microbatch=10_000, shared=False, cost=policy.cost, padded=True)
    optimizer = torch.optim.SGD(policy.parameters(), lr=0.01)
    losses = []
    for step in range(4):
        logprobs_ET = policy.outputs(batch, rows, 1.0, frozenset({"logprobs"}))["logprobs"]
        if step == 0:
            torch.testing.assert_close(logprobs_ET.detach(), own_ET, rtol=0, atol=5e-6)
        loss = -logprobs_ET.sum() / batch.mask_ET.sum()
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert all(later < earlier for earlier, later in pairwise(losses))
    experts = [n for n, p in policy.model.named_parameters() if "experts" in n and p.grad.any()]
    assert experts
