"""Laws 3 and 4: the rollout draws from the distribution that is trained, and no completion feels its company."""

import math
import random
from collections.abc import Sequence

import pytest
import torch

from oracles import sampling as oracle
from sharpen.data.collate import collate
from sharpen.errors import ModelError
from sharpen.models.forward import MicrobatchLimits, all_outputs
from sharpen.models.policy import Policy
from sharpen.rollout.engine import Sampling
from sharpen.rollout.local.engine import LocalEngine
from sharpen.rollout.sampling import Truncation, uniforms
from sharpen.types import Completion, Finish, Group, Prompt
from tiny_models import EOS, make_prompt, own_logprobs, tiny_policy

SEED = 11
TEXTS = ("1+2=", "7", "12345+6789=", "9-9", "0000000", "3+3=")


@pytest.fixture(scope="module")
def policy() -> Policy:
    return tiny_policy()


def prompts_of(policy: Policy) -> list[Prompt]:
    return [make_prompt(policy, text) for text in TEXTS]


def draw(
    policy: Policy, prompts: Sequence[Prompt], ids: Sequence[Sequence[int]], **settings: object
) -> list[tuple[Completion, ...]]:
    sampling = Sampling(**{"max_new_tokens": 12, **settings})  # type: ignore[arg-type]
    return LocalEngine(policy).generate(prompts, ids, sampling, SEED)


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
def test_the_trainers_log_probabilities_are_the_rollouts(name: str, temperature: float) -> None:
    architecture, settings = ARCHITECTURES[name]
    policy = tiny_policy(architecture, **settings)
    prompts = prompts_of(policy)
    ids = [range(100 * i, 100 * i + 4) for i in range(len(prompts))]
    drawn = draw(policy, prompts, ids, truncation=Truncation(temperature))
    batch = collate([Group(p, c) for p, c in zip(prompts, drawn, strict=True)])
    assert batch.mask_BT.sum() > 100
    assert batch.sample_logprobs_BT is not None
    for limits in (MicrobatchLimits(60, True), MicrobatchLimits(10_000, False)):
        trained_BT = all_outputs(policy, batch, "logprobs", temperature, limits)
        torch.testing.assert_close(trained_BT, batch.sample_logprobs_BT, rtol=0, atol=1e-5)
    own_BT = torch.stack(own_logprobs(policy.model, batch, temperature)).detach()
    torch.testing.assert_close(batch.sample_logprobs_BT, own_BT * batch.mask_BT, rtol=0, atol=1e-5)


def test_in_bfloat16_they_differ_by_its_rounding() -> None:
    """bfloat16 keeps 8 bits: logits of size 3 are off by about 0.01."""
    policy = tiny_policy("llama", compute_dtype="bfloat16")
    prompts = prompts_of(policy)
    drawn = draw(policy, prompts, [range(100 * i, 100 * i + 6) for i in range(len(prompts))])
    batch = collate([Group(p, c) for p, c in zip(prompts, drawn, strict=True)])
    trained_BT = all_outputs(policy, batch, "logprobs", 1.0, MicrobatchLimits(200, True))
    difference = (trained_BT - batch.sample_logprobs_BT)[batch.mask_BT]
    assert difference.abs().mean() < 0.02
    assert difference.abs().max() < 0.2


def test_in_bfloat16_publishing_takes_the_new_weights_over() -> None:
    policy, other = (tiny_policy("llama", compute_dtype="bfloat16", seed=seed) for seed in (0, 1))
    engine = LocalEngine(policy)
    prompts, ids = prompts_of(policy), [range(6 * i, 6 * i + 6) for i in range(len(TEXTS))]
    before = engine.generate(prompts, ids, Sampling(8), SEED)
    policy.model.load_state_dict(other.model.state_dict())
    engine.publish()
    assert engine.generate(prompts, ids, Sampling(8), SEED) == LocalEngine(other).generate(
        prompts, ids, Sampling(8), SEED
    )
    assert engine.generate(prompts, ids, Sampling(8), SEED) != before


def test_a_model_that_keeps_its_past_elsewhere_is_refused_instead_of_forgetting_it() -> None:
    """Mamba takes `cache_params`; it would answer every token as if it were the first."""
    with pytest.raises(ModelError, match="mamba"):
        LocalEngine(tiny_policy("mamba"))


# Law 4


def explain_difference(policy: Policy, prompt: Prompt, one: Completion, other: Completion) -> None:
    """The first token that differs must have had a uniform number within rounding of an edge between tokens."""
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
def test_a_completion_drawn_alone_is_the_one_drawn_in_company(architecture: str, max_sequences: int) -> None:
    """In groups, beside longer and shorter prompts, in any order, with rows that finish and leave: the same."""
    policy = tiny_policy(architecture, dtype=torch.float64)
    prompts = prompts_of(policy)
    ids = [[*range(100 * i, 100 * i + size)] for i, size in enumerate((7, 1, 4, 12, 2, 5))]
    alone = {
        i: LocalEngine(policy).generate([prompt], [[i]], Sampling(24), SEED)[0][0]
        for prompt, group in zip(prompts, ids, strict=True)
        for i in group
    }
    assert len({len(c.token_ids) for c in alone.values()}) > 5

    rng = random.Random(3)
    order = rng.sample(range(len(prompts)), len(prompts))
    shuffled = [rng.sample(ids[i], len(ids[i])) for i in order]
    for prompts_asked, ids_asked in ((prompts, ids), ([prompts[i] for i in order], shuffled)):
        drawn = draw(policy, prompts_asked, ids_asked, max_new_tokens=24, max_sequences=max_sequences)
        assert [[c.draw_id for c in group] for group in drawn] == ids_asked
        for prompt, group in zip(prompts_asked, drawn, strict=True):
            for completion in group:
                assert completion.draw_id is not None
                expected = alone[completion.draw_id]
                if completion.token_ids != expected.token_ids:
                    explain_difference(policy, prompt, completion, expected)
                    continue
                assert (completion.text, completion.finish) == (expected.text, expected.finish)
                assert completion.sample_logprobs == pytest.approx(expected.sample_logprobs, abs=1e-6)


def test_every_token_is_the_one_that_its_uniform_number_names(policy: Policy) -> None:
    """By the plain loop: the model's own softmax, the inverse of its cumulative sum, the number of (seed, id, t)."""
    prompts = prompts_of(policy)
    ids = [range(5 * i, 5 * i + 5) for i in range(len(prompts))]
    for prompt, group in zip(prompts, draw(policy, prompts, ids, truncation=Truncation(1.3)), strict=True):
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
                assert completion.sample_logprobs[t] == pytest.approx(math.log(probabilities[token]), abs=1e-5)


@pytest.mark.parametrize("settings", [{"top_k": 3}, {"top_p": 0.6}, {"min_p": 0.4}, {"temperature": 0.0}])
def test_truncated_draws_come_from_the_truncated_distribution(policy: Policy, settings: dict[str, float]) -> None:
    prompts = prompts_of(policy)[:3]
    ids = [range(4 * i, 4 * i + 4) for i in range(3)]
    drawn = draw(policy, prompts, ids, max_new_tokens=5, truncation=Truncation(**settings))  # type: ignore[arg-type]
    for prompt, group in zip(prompts, drawn, strict=True):
        for completion in group:
            sequence = torch.tensor([(*prompt.token_ids, *completion.token_ids)])
            with torch.no_grad():
                logits = policy.model(input_ids=sequence).logits[0, len(prompt.token_ids) - 1 :].double()
            for t, token in enumerate(completion.token_ids):
                probabilities = oracle.truncated(logits[t].tolist(), **settings)  # type: ignore[arg-type]
                assert completion.sample_logprobs[t] == pytest.approx(math.log(probabilities[token]), abs=1e-5)


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_first_tokens_are_as_frequent_as_they_are_probable(policy: Policy, temperature: float) -> None:
    """χ² over the tokens that are expected at least 5 times, the rest taken together."""
    count = 4000
    prompt = make_prompt(policy, "12+3=")
    [group] = draw(policy, [prompt], [range(count)], max_new_tokens=1, truncation=Truncation(temperature))
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
    """A model that writes the one token that ``script`` gives for the token before."""
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


def test_every_declared_end_id_ends_a_completion_and_is_part_of_it() -> None:
    chain = {"1": "2", "2": "3", "3": "4", "4": "5", "a": "b", "b": "<eos>"}
    policy = scripted(chain)
    four = policy.tokenizer.convert_tokens_to_ids("4")
    policy.eos_ids = frozenset({EOS, four})
    drawn = draw(policy, [make_prompt(policy, "1"), make_prompt(policy, "0a")], [[0], [1]])
    (numbers,), (letters,) = drawn
    assert (numbers.text, numbers.finish) == ("234", Finish.EOS)
    assert numbers.token_ids[-1] == four
    assert (letters.text, letters.finish) == ("b", Finish.EOS)
    assert letters.token_ids[-1] == EOS
    assert letters.loss_mask == (True, True)
    assert letters.versions == (0, 0)
    assert letters.sample_logprobs == pytest.approx((0.0, 0.0), abs=1e-6)


def test_the_reasons_to_end() -> None:
    policy = scripted({"1": "2", "2": "3", "3": "4", "4": "1", "a": "<eos>"})
    one, end = make_prompt(policy, "1"), make_prompt(policy, "a")

    def drawn(**settings: object) -> list[tuple[str, str]]:
        return [(c.text, c.finish.value) for (c,) in draw(policy, [one, end], [[0], [1]], **settings)]

    assert drawn(max_new_tokens=6) == [("234123", "length"), ("", "eos")]
    assert drawn(max_new_tokens=1) == [("2", "length"), ("", "eos")]
    assert drawn(max_new_tokens=9, stop=("4",)) == [("234", "stop_string"), ("", "eos")]
    # A stop string may span tokens, and the first of several that appears ends it.
    assert drawn(max_new_tokens=9, stop=("3412", "zzz")) == [("23412", "stop_string"), ("", "eos")]
    assert drawn(max_new_tokens=9, stop=("3412", "41")) == [("2341", "stop_string"), ("", "eos")]
    # On the last token, the better reason is named.
    assert drawn(max_new_tokens=3, stop=("4",)) == [("234", "stop_string"), ("", "eos")]
    # Nothing of the prompt takes part in a stop string.
    assert drawn(max_new_tokens=3, stop=("12",)) == [("234", "length"), ("", "eos")]


def test_rows_that_end_leave_the_others_as_they_are() -> None:
    """Chains of different length finish one after another; what is left is compacted again and again."""
    policy = scripted({"0": "1", "1": "2", "2": "3", "3": "4", "4": "5", "5": "6", "6": "7", "7": "8", "8": "<eos>"})
    starts = "7305182640"
    prompts = [make_prompt(policy, start) for start in starts]
    drawn = draw(policy, prompts, [[i, 50 + i] for i in range(len(starts))], max_new_tokens=20)
    for start, group in zip(starts, drawn, strict=True):
        expected = "".join(str(n) for n in range(int(start) + 1, 9))
        assert [(c.text, c.finish) for c in group] == [(expected, Finish.EOS)] * 2
        assert all(len(c.token_ids) == len(c.sample_logprobs) == len(expected) + 1 for c in group)


def test_a_prompt_without_draws_gets_none(policy: Policy) -> None:
    prompts = prompts_of(policy)[:3]
    drawn = draw(policy, prompts, [[4], [], [5, 6]])
    assert [[c.draw_id for c in group] for group in drawn] == [[4], [], [5, 6]]


def test_the_model_is_left_in_the_mode_it_was_in(policy: Policy) -> None:
    policy.model.train()
    draw(policy, prompts_of(policy)[:1], [[0]])
    assert policy.model.training
    policy.model.eval()
