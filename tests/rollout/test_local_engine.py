"""Laws 3 and 4: the rollout samples from the distribution that is trained; completions do not depend on their batch."""

import math
import random
import warnings
from collections.abc import Sequence

import pytest
import torch

from oracles import sampling as oracle
from sharpen.data.collate import collate
from sharpen.models.forward import MicrobatchLimits, all_outputs
from sharpen.models.policy import Policy
from sharpen.rollout.engine import Sampling, Snapshot
from sharpen.rollout.generation import generate
from sharpen.rollout.local.cache_check import why_cache_fails
from sharpen.rollout.local.engine import LocalEngine
from sharpen.rollout.local.transformers_cache import cache_argument, make_cache, select_cache_rows
from sharpen.rollout.sampling import uniforms
from sharpen.types import Finish, Group, Prompt, Trajectory
from tiny_models import EOS, make_prompt, own_logprobs, tiny_policy

SEED = 11
TEXTS = ("1+2=", "7", "12345+6789=", "9-9", "0000000", "3+3=")


@pytest.fixture(scope="module")
def policy() -> Policy:
    return tiny_policy()


def prompts_of(policy: Policy) -> list[Prompt]:
    return [make_prompt(policy, text) for text in TEXTS]


def sample(
    policy: Policy,
    prompts: Sequence[Prompt],
    ids: Sequence[Sequence[int]],
    max_sequences: int = 512,
    **settings: object,
) -> list[tuple[Trajectory, ...]]:
    engine = LocalEngine(policy, max_sequences=max_sequences)
    sampling = Sampling(**{"max_new_tokens": 12, **settings})  # type: ignore[arg-type]
    return generate(engine, prompts, ids, sampling, SEED)


# Law 3

ARCHITECTURES = {
    "llama": ("llama", {}),
    "tied qwen3": ("qwen3", {"tie_word_embeddings": True}),
    "olmo2": ("olmo2", {}),
    "mistral with a window": ("mistral", {"sliding_window": 4}),
    "gpt2": ("gpt2", {}),
    "opt": ("opt", {}),
    "gemma3": ("gemma3_text", {"sliding_window": 4}),
    "mixtral": ("mixtral", {}),
}


@pytest.mark.parametrize("temperature", [1.0, 0.7, 1.6])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_the_trainers_log_probabilities_equal_the_rollouts(name: str, temperature: float) -> None:
    architecture, settings = ARCHITECTURES[name]
    policy = tiny_policy(architecture, **settings)
    prompts = prompts_of(policy)
    ids = [range(100 * i, 100 * i + 4) for i in range(len(prompts))]
    completions = sample(policy, prompts, ids, temperature=temperature)
    batch = collate([Group(p, c) for p, c in zip(prompts, completions, strict=True)])
    assert batch.mask_ET.sum() > 100
    for limits in (MicrobatchLimits(60, True), MicrobatchLimits(10_000, False)):
        trained_ET = all_outputs(policy, batch, "logprobs", temperature, limits)
        torch.testing.assert_close(trained_ET, batch["rollout_logprobs"], rtol=0, atol=1e-5)
    own_ET = torch.stack(own_logprobs(policy.model, batch, temperature)).detach()
    torch.testing.assert_close(batch["rollout_logprobs"], own_ET * batch.mask_ET, rtol=0, atol=1e-5)


def test_in_bfloat16_log_probabilities_differ_by_rounding() -> None:
    """bfloat16 has 8 significant bits: logits of size 3 are off by about 0.01."""
    policy = tiny_policy("llama", compute_dtype="bfloat16")
    prompts = prompts_of(policy)
    completions = sample(policy, prompts, [range(100 * i, 100 * i + 6) for i in range(len(prompts))])
    batch = collate([Group(p, c) for p, c in zip(prompts, completions, strict=True)])
    trained_ET = all_outputs(policy, batch, "logprobs", 1.0, MicrobatchLimits(200, True))
    difference = (trained_ET - batch["rollout_logprobs"])[batch.mask_ET]
    assert difference.abs().mean() < 0.02
    assert difference.abs().max() < 0.2


def test_a_snapshot_loads_the_new_weights_in_bfloat16() -> None:
    policy, other = (tiny_policy("llama", compute_dtype="bfloat16", seed=seed) for seed in (0, 1))
    engine = LocalEngine(policy)
    prompts, ids = prompts_of(policy), [range(6 * i, 6 * i + 6) for i in range(len(TEXTS))]
    before = generate(engine, prompts, ids, Sampling(8), SEED)
    policy.model.load_state_dict(other.model.state_dict())
    policy.version = other.version = 1
    engine.load(Snapshot(1, policy))
    after = generate(engine, prompts, ids, Sampling(8), SEED)
    assert after == generate(LocalEngine(other), prompts, ids, Sampling(8), SEED) != before


def test_a_recurrent_state_moves_with_its_row() -> None:
    """Falcon-H1 has keys, values and a recurrent state in a layer; rows finish at different times."""
    policy = tiny_policy("falcon_h1")
    cache = make_cache(policy.config, None)
    ids = torch.tensor([[3, 4, 5], [6, 7, 8], [9, 10, 11]])
    with torch.no_grad():
        policy.model(input_ids=ids, use_cache=True, past_key_values=cache)
        state = cache.layers[0].recurrent_states[0].clone()
        select_cache_rows(cache, torch.tensor([2, 0, 0]))
    assert torch.equal(cache.layers[0].recurrent_states[0], state[[2, 0, 0]])
    assert cache.layers[0].keys.shape[0] == 3


def test_a_cache_that_loses_something_is_not_used() -> None:
    """transformers' cache of Mamba is wrong for a padded context; one that is right is used without a word."""
    policy = tiny_policy("mamba")
    assert "differ by" in str(why_cache_fails(policy, str(cache_argument(policy.model))))
    with pytest.warns(UserWarning, match=r"a model of type mamba is sampled from slowly.*differ by"):
        LocalEngine(policy)
    with pytest.warns(UserWarning, match=r"type minimax is sampled from slowly.*forward raises ValueError"):
        LocalEngine(tiny_policy("minimax"))
    with pytest.warns(UserWarning, match=r"type rwkv is sampled from slowly.*takes no cache"):
        LocalEngine(tiny_policy("rwkv"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        LocalEngine(tiny_policy("gpt2"))


# Law 4


def explain_difference(policy: Policy, prompt: Prompt, one: Trajectory, other: Trajectory) -> None:
    """At the first different token, the uniform number must be within rounding of an edge between tokens."""
    pairs = zip(one.token_ids, other.token_ids, strict=False)
    t = next(t for t, (a, b) in enumerate(pairs) if a != b)
    ids = torch.tensor([(*prompt.token_ids, *one.token_ids[:t])])
    with torch.no_grad():
        logits = policy.model(input_ids=ids).logits[0, -1].double().tolist()
    edges = [oracle.interval(oracle.softmax(logits), token)[0] for token in range(len(logits))]
    assert one.draw_id is not None
    uniform = uniforms(SEED, [one.draw_id], t + 1)[0, t].item()
    assert min(abs(edge - uniform) for edge in edges) < 1e-5


@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
@pytest.mark.parametrize("max_sequences", [1, 3, 8, 512])
def test_a_completion_sampled_alone_equals_the_one_sampled_in_a_batch(architecture: str, max_sequences: int) -> None:
    """In groups, beside longer and shorter prompts, in any order, while other rows finish and are removed."""
    policy = tiny_policy(architecture, dtype=torch.float64)
    prompts = prompts_of(policy)
    ids = [[*range(100 * i, 100 * i + size)] for i, size in enumerate((7, 1, 4, 12, 2, 5))]
    alone = {
        i: generate(LocalEngine(policy), [prompt], [[i]], Sampling(24), SEED)[0][0]
        for prompt, group in zip(prompts, ids, strict=True)
        for i in group
    }
    assert len({len(c.token_ids) for c in alone.values()}) > 5

    rng = random.Random(3)
    order = rng.sample(range(len(prompts)), len(prompts))
    shuffled = [rng.sample(ids[i], len(ids[i])) for i in order]
    for prompts_asked, ids_asked in ((prompts, ids), ([prompts[i] for i in order], shuffled)):
        completions = sample(policy, prompts_asked, ids_asked, max_new_tokens=24, max_sequences=max_sequences)
        assert [[c.draw_id for c in group] for group in completions] == ids_asked
        for prompt, group in zip(prompts_asked, completions, strict=True):
            for completion in group:
                assert completion.draw_id is not None
                expected = alone[completion.draw_id]
                if completion.token_ids != expected.token_ids:
                    explain_difference(policy, prompt, completion, expected)
                    continue
                assert (completion.text, completion.last.finish) == (expected.text, expected.last.finish)
                assert completion.last.logprobs == pytest.approx(expected.last.logprobs, abs=1e-6)


def test_every_token_is_the_one_selected_by_its_uniform_number(policy: Policy) -> None:
    """By a plain loop: the model's softmax and the inverse of its cumulative sum at the number of (seed, id, t)."""
    prompts = prompts_of(policy)
    ids = [range(5 * i, 5 * i + 5) for i in range(len(prompts))]
    for prompt, group in zip(prompts, sample(policy, prompts, ids, temperature=1.3), strict=True):
        for completion in group:
            assert completion.draw_id is not None
            uniform = uniforms(SEED, [completion.draw_id], 12)[0].tolist()
            sequence = torch.tensor([(*prompt.token_ids, *completion.token_ids)])
            with torch.no_grad():
                logits = policy.model(input_ids=sequence).logits[0, len(prompt.token_ids) - 1 :].double()
            for t, token in enumerate(completion.token_ids):
                probabilities = oracle.truncated(logits[t].tolist(), temperature=1.3)
                low, high = oracle.interval(probabilities, token)
                assert low - 1e-6 <= uniform[t] <= high + 1e-6
                assert completion.last.logprobs[t] == pytest.approx(math.log(probabilities[token]), abs=1e-5)


@pytest.mark.parametrize("settings", [{"top_k": 3}, {"top_p": 0.6}, {"min_p": 0.4}, {"temperature": 0.0}])
def test_truncated_sampling_uses_the_truncated_distribution(policy: Policy, settings: dict[str, float]) -> None:
    prompts = prompts_of(policy)[:3]
    ids = [range(4 * i, 4 * i + 4) for i in range(3)]
    completions = sample(policy, prompts, ids, max_new_tokens=5, **settings)  # type: ignore[arg-type]
    for prompt, group in zip(prompts, completions, strict=True):
        for completion in group:
            sequence = torch.tensor([(*prompt.token_ids, *completion.token_ids)])
            with torch.no_grad():
                logits = policy.model(input_ids=sequence).logits[0, len(prompt.token_ids) - 1 :].double()
            for t, token in enumerate(completion.token_ids):
                probabilities = oracle.truncated(logits[t].tolist(), **settings)  # type: ignore[arg-type]
                assert completion.last.logprobs[t] == pytest.approx(math.log(probabilities[token]), abs=1e-5)


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_first_tokens_are_as_frequent_as_they_are_probable(policy: Policy, temperature: float) -> None:
    """χ² over the tokens expected at least 5 times, all others pooled."""
    count = 4000
    prompt = make_prompt(policy, "12+3=")
    [group] = sample(policy, [prompt], [range(count)], max_new_tokens=1, temperature=temperature)
    with torch.no_grad():
        logits = policy.model(input_ids=torch.tensor([prompt.token_ids])).logits[0, -1].double().tolist()
    expected = [count * p for p in oracle.softmax([logit / temperature for logit in logits])]
    counts = [0] * len(expected)
    for completion in group:
        counts[completion.token_ids[0]] += 1
    cells = [(counts[v], expected[v]) for v in range(len(expected)) if expected[v] >= 5]
    rest = (count - sum(c for c, _ in cells), count - sum(e for _, e in cells))
    cells += [rest] if rest[1] >= 1 else []
    chi_square = sum((c - e) ** 2 / e for c, e in cells)
    freedom = len(cells) - 1
    assert freedom > 5
    assert chi_square < freedom + 4 * math.sqrt(2 * freedom)


# How completions end


def scripted(script: dict[str, str]) -> Policy:
    """A model that follows each token with the one that ``script`` gives for it."""
    policy = tiny_policy(num_hidden_layers=1, hidden_size=32, tie_word_embeddings=False)
    ids = policy.tokenizer.convert_tokens_to_ids
    vocabulary = policy.config.vocab_size
    with torch.no_grad():
        for parameter in policy.model.parameters():
            parameter.zero_()
        policy.model.model.norm.weight.fill_(1.0)
        # Nothing but the embedding reaches the head: one direction for each token.
        policy.model.model.embed_tokens.weight[torch.arange(vocabulary), torch.arange(vocabulary)] = 1.0
        for a, b in script.items():
            policy.model.lm_head.weight[ids(b), ids(a)] = 100.0
    return policy


def test_every_eos_id_ends_a_completion_and_is_part_of_it() -> None:
    chain = {"1": "2", "2": "3", "3": "4", "4": "5", "a": "b", "b": "<eos>"}
    policy = scripted(chain)
    four = policy.tokenizer.convert_tokens_to_ids("4")
    policy.eos_ids = frozenset({EOS, four})
    completions = sample(policy, [make_prompt(policy, "1"), make_prompt(policy, "0a")], [[0], [1]])
    (numbers,), (letters,) = completions
    assert (numbers.text, numbers.last.finish) == ("234", Finish.EOS)
    assert numbers.token_ids[-1] == four
    assert (letters.text, letters.last.finish) == ("b", Finish.EOS)
    assert letters.token_ids[-1] == EOS
    assert letters.loss_mask == (True, True)
    assert letters.last.versions == (0, 0)
    assert letters.last.logprobs == pytest.approx((0.0, 0.0), abs=1e-6)


def test_finish_reasons() -> None:
    policy = scripted({"1": "2", "2": "3", "3": "4", "4": "1", "a": "<eos>"})
    one, end = make_prompt(policy, "1"), make_prompt(policy, "a")

    def texts_and_reasons(**settings: object) -> list[tuple[str, str]]:
        return [(c.text, c.last.finish.value) for (c,) in sample(policy, [one, end], [[0], [1]], **settings)]

    assert texts_and_reasons(max_new_tokens=6) == [("234123", "length"), ("", "eos")]
    assert texts_and_reasons(max_new_tokens=1) == [("2", "length"), ("", "eos")]
    assert texts_and_reasons(max_new_tokens=9, stop=("4",)) == [("234", "stop_string"), ("", "eos")]
    # A stop string may span tokens, and the first of several that appears ends it.
    assert texts_and_reasons(max_new_tokens=9, stop=("3412", "zzz")) == [("23412", "stop_string"), ("", "eos")]
    assert texts_and_reasons(max_new_tokens=9, stop=("3412", "41")) == [("2341", "stop_string"), ("", "eos")]
    # On the last token, a stop string takes precedence over the length.
    assert texts_and_reasons(max_new_tokens=3, stop=("4",)) == [("234", "stop_string"), ("", "eos")]
    # A stop string does not match text of the prompt.
    assert texts_and_reasons(max_new_tokens=3, stop=("12",)) == [("234", "length"), ("", "eos")]


def test_removing_finished_rows_does_not_affect_the_others() -> None:
    """Chains of different lengths finish one after another, and the batch is compacted several times."""
    policy = scripted({"0": "1", "1": "2", "2": "3", "3": "4", "4": "5", "5": "6", "6": "7", "7": "8", "8": "<eos>"})
    starts = "7305182640"
    prompts = [make_prompt(policy, start) for start in starts]
    completions = sample(policy, prompts, [[i, 50 + i] for i in range(len(starts))], max_new_tokens=20)
    for start, group in zip(starts, completions, strict=True):
        expected = "".join(str(n) for n in range(int(start) + 1, 9))
        assert [(c.text, c.last.finish) for c in group] == [(expected, Finish.EOS)] * 2
        assert all(len(c.token_ids) == len(c.last.logprobs) == len(expected) + 1 for c in group)


def test_a_prompt_without_draw_ids_gets_no_completions(policy: Policy) -> None:
    prompts = prompts_of(policy)[:3]
    completions = sample(policy, prompts, [[4], [], [5, 6]])
    assert [[c.draw_id for c in group] for group in completions] == [[4], [], [5, 6]]


def test_the_models_training_mode_is_restored(policy: Policy) -> None:
    policy.model.train()
    sample(policy, prompts_of(policy)[:1], [[0]])
    assert policy.model.training
    policy.model.eval()
