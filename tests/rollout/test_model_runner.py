"""The native runner against the model's own forward pass over whole sequences, as rows come, go and change order."""

import pytest
import torch
from torch import Tensor

from sharpen.models.policy import Policy
from sharpen.rollout.engine import Request, Sampling
from sharpen.rollout.generation import generate, run_block
from sharpen.rollout.local import model_runner, projections, torch_kv_cache
from sharpen.rollout.local.engine import LocalEngine
from sharpen.rollout.local.inference_model import InferenceModel
from sharpen.rollout.local.model_runner import NativeRunner
from sharpen.rollout.local.projections import BlockedProjection
from tiny_models import make_prompt, tiny_policy

ARCHITECTURES = {
    "llama": ("llama", {}),
    "llama with biases, one kv head": ("llama", {"attention_bias": True, "mlp_bias": True, "num_key_value_heads": 1}),
    "llama with as many kv heads": ("llama", {"num_key_value_heads": 4}),
    "tied qwen3": ("qwen3", {"tie_word_embeddings": True}),
    "qwen2": ("qwen2", {}),
    "olmo2": ("olmo2", {}),
    "mistral": ("mistral", {}),
}
SLACK = 1e-6
"""The norms of transformers round to float32, whatever the dtype of the model."""


class Sequences:
    """The tokens of each row so far, and their logits by the model's own forward pass."""

    def __init__(self, policy: Policy) -> None:
        self.policy, self.tokens = policy, list[list[int]]()
        self.generator = torch.Generator().manual_seed(0)

    def prefill(self, contexts: list[tuple[int, ...]], copies: list[int]) -> Tensor:
        new = [list(p) for p, n in zip(contexts, copies, strict=True) for _ in range(n)]
        self.tokens += new
        return self.logits(new)

    def step(self) -> tuple[Tensor, Tensor]:
        token_B = torch.randint(2, 19, (len(self.tokens),), generator=self.generator)
        self.tokens = [[*row, token] for row, token in zip(self.tokens, token_B.tolist(), strict=True)]
        return token_B, self.logits(self.tokens)

    def logits(self, rows: list[list[int]]) -> Tensor:
        with torch.no_grad():
            return torch.stack([self.policy.model(input_ids=torch.tensor([row])).logits[0, -1] for row in rows])


def decoded(runner: NativeRunner, token_B: Tensor) -> Tensor:
    runner.reserve()
    return runner.decode(token_B)


@pytest.mark.parametrize("block", [1, 4, 16])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_logits_equal_those_of_a_forward_pass_over_the_whole_sequence(
    name: str, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch_kv_cache, "CPU_BLOCK", block)
    architecture, settings = ARCHITECTURES[name]
    policy = tiny_policy(architecture, dtype=torch.float64, **settings)
    runner, reference = NativeRunner(InferenceModel(policy), max_new_tokens=12), Sequences(policy)
    texts = ("1+2=", "7", "12345+6789=", "9-9", "00", "3+3=")
    first, second = ([make_prompt(policy, t).token_ids for t in part] for part in (texts[:3], texts[3:]))

    def close(found: Tensor, expected: Tensor) -> None:
        torch.testing.assert_close(found, expected, rtol=0, atol=SLACK)

    def advance() -> None:
        token_B, expected = reference.step()
        close(decoded(runner, token_B), expected)

    with torch.no_grad():
        close(runner.prefill(first, [2, 2, 2]), reference.prefill(first, [2, 2, 2]))
        for _ in range(3):
            advance()
        # Groups of different sizes, one prompt removed with both of its rows, the order reversed.
        index_B = torch.tensor([5, 4, 0])
        runner.select_rows(index_B)
        reference.tokens = [reference.tokens[b] for b in index_B.tolist()]
        advance()
        # New rows join rows in mid-completion.
        close(runner.prefill(second, [1, 3, 2]), reference.prefill(second, [1, 3, 2]))
        for _ in range(4):
            advance()
        index_B = torch.tensor([1, 3, 4, 5, 7, 8])
        runner.select_rows(index_B)
        reference.tokens = [reference.tokens[b] for b in index_B.tolist()]
        advance()
        advance()


@pytest.fixture
def blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Use the blocked layout, whatever the processor and the size of the weights."""
    if not torch.backends.mkldnn.is_available():
        pytest.skip("this torch has no oneDNN")
    monkeypatch.setattr(projections, "_MIN_WEIGHTS", 0)
    monkeypatch.setattr(projections, "amd_has_onednn", lambda: True)


def blocked(model: InferenceModel) -> list[BlockedProjection]:
    return [projection for projection in model._projections if isinstance(projection, BlockedProjection)]


@pytest.mark.usefixtures("blocks")
@pytest.mark.parametrize("name", ["llama with biases, one kv head", "tied qwen3"])
def test_logits_from_blocked_weights(name: str) -> None:
    architecture, settings = ARCHITECTURES[name]
    policy = tiny_policy(architecture, **settings)
    model, prompts = InferenceModel(policy), [make_prompt(policy, t).token_ids for t in ("1+2=", "7")]
    # Per layer q, k and v; the output of attention; gate and up; down. And the head.
    assert len(blocked(model)) == 4 * policy.config.num_hidden_layers + 1

    def check() -> None:
        runner, reference = NativeRunner(model, max_new_tokens=4), Sequences(policy)
        torch.testing.assert_close(
            runner.prefill(prompts, [2, 1]), reference.prefill(prompts, [2, 1]), rtol=0, atol=1e-5
        )
        token_B, expected = reference.step()
        torch.testing.assert_close(decoded(runner, token_B), expected, rtol=0, atol=1e-5)

    with torch.no_grad():
        check()
        for parameter in policy.model.parameters():
            parameter.mul_(0.9)
        model.release()
        check()


@pytest.mark.usefixtures("blocks")
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_copies_are_released_after_a_call_and_the_next_call_uses_the_current_weights(dtype: str) -> None:
    def logprobs(engine: LocalEngine) -> tuple[float, ...]:
        ((completion,),) = generate(engine, [make_prompt(policy, "1+2=")], [[0]], Sampling(4), seed=0)
        return completion.last.logprobs

    if dtype == "bfloat16" and not projections.onednn_computes_bfloat16():
        pytest.skip("oneDNN has no bfloat16 on this processor")
    policy = tiny_policy(compute_dtype=dtype)
    engine = LocalEngine(policy)
    before = logprobs(engine)
    assert engine._inference_model is not None
    assert blocked(engine._inference_model)
    assert all(projection._copy is None for projection in blocked(engine._inference_model))
    with torch.no_grad():
        for parameter in policy.model.parameters():
            parameter.mul_(0.9)
    assert logprobs(engine) == logprobs(LocalEngine(policy)) != before


def test_small_weights_and_float64_are_not_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not blocked(InferenceModel(tiny_policy()))
    monkeypatch.setattr(projections, "_MIN_WEIGHTS", 0)
    monkeypatch.setattr(projections, "amd_has_onednn", lambda: True)
    assert not blocked(InferenceModel(tiny_policy(dtype=torch.float64)))


def test_prefill_in_several_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_runner, "PREFILL_TOKENS", 12)
    policy = tiny_policy(dtype=torch.float64)
    prompts = [make_prompt(policy, t).token_ids for t in ("7", "12", "123", "1234", "12345", "123456", "1" * 40)]
    # Width times rows: 3·3 fits, 4·4 does not; 5·2 fits, 6·3 does not; 40 exceeds the limit and gets a pass of its own.
    assert model_runner._prefill_passes([len(p) for p in prompts]) == [(0, 3), (3, 5), (5, 6), (6, 7)]
    runner, reference = NativeRunner(InferenceModel(policy), max_new_tokens=4), Sequences(policy)
    copies = [1, 2, 1, 3, 1, 2, 1]
    with torch.no_grad():
        torch.testing.assert_close(
            runner.prefill(prompts, copies), reference.prefill(prompts, copies), rtol=0, atol=SLACK
        )
        token_B, expected = reference.step()
        torch.testing.assert_close(decoded(runner, token_B), expected, rtol=0, atol=SLACK)


def test_a_full_row_does_not_affect_the_others() -> None:
    """Capacity for 3 tokens: the first row is decoded past its end, the second starts later."""
    policy = tiny_policy(dtype=torch.float64)
    runner, reference = NativeRunner(InferenceModel(policy), max_new_tokens=3), Sequences(policy)
    early, late = [make_prompt(policy, "1+2=").token_ids], [make_prompt(policy, "7").token_ids]
    with torch.no_grad():
        runner.prefill(early, [1])
        reference.prefill(early, [1])
        for _ in range(3):
            token_B, expected = reference.step()
            torch.testing.assert_close(decoded(runner, token_B), expected, rtol=0, atol=SLACK)
        runner.prefill(late, [1])
        reference.prefill(late, [1])
        for _ in range(3):
            token_B, expected = reference.step()
            torch.testing.assert_close(decoded(runner, token_B)[1], expected[1], rtol=0, atol=SLACK)


def test_a_longer_row_joins_one_that_ran_past_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Capacity for 3 tokens and no headroom: the first row is decoded 6 times, then the limit is raised to 9."""
    for module in ("kv_cache", "torch_kv_cache"):
        monkeypatch.setattr(f"sharpen.rollout.local.{module}.MIN_HEADROOM", 0)
    monkeypatch.setattr(torch_kv_cache, "CPU_BLOCK", 1)
    policy = tiny_policy(dtype=torch.float64)
    runner, reference = NativeRunner(InferenceModel(policy), max_new_tokens=3), Sequences(policy)
    early, late = [make_prompt(policy, "1+2=").token_ids], [make_prompt(policy, "7").token_ids]
    with torch.no_grad():
        runner.prefill(early, [1])
        reference.prefill(early, [1])
        for _ in range(6):
            decoded(runner, reference.step()[0])
        runner.raise_limit(9)
        runner.prefill(late, [1])
        reference.prefill(late, [1])
        for _ in range(9):
            token_B, expected = reference.step()
            torch.testing.assert_close(decoded(runner, token_B)[1], expected[1], rtol=0, atol=SLACK)


def test_a_prompt_is_prefilled_once_for_its_group(monkeypatch: pytest.MonkeyPatch) -> None:
    policy = tiny_policy()
    computed: list[int] = []
    forward = InferenceModel._forward

    def counting(self: InferenceModel, token_N: Tensor, *rest: object) -> Tensor:
        computed.append(len(token_N))
        return forward(self, token_N, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(InferenceModel, "_forward", counting)
    policy.eos_ids = frozenset()
    generate(LocalEngine(policy), [make_prompt(policy, "123456=")], [range(5)], Sampling(4), seed=0)
    # 7 tokens of the prompt, then three steps of 5 rows: the fourth token is sampled but not decoded.
    assert computed == [7, 5, 5, 5]


def test_waiting_requests_take_the_place_of_finished_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """8 completions of 1, 2, …, 8 tokens, at most 4 at once.

    After token 1 the first row has finished: 3 of 4 are unfinished, and the completion of 5 tokens takes its place.
    After token 2 the second is replaced by that of 6, after token 3 the third by that of 7, after token 4 the fourth by
    that of 8. These finish after tokens 1 + 5, 2 + 6, 3 + 7 and 4 + 8. Running rows: 4 until token 5; 3 after token 6,
    when the completion of 5 has finished; 2 after token 8; 1 after token 10, until token 12.
    """
    policy = tiny_policy()
    policy.eos_ids = frozenset()
    steps: list[int] = []
    step = InferenceModel.decode
    monkeypatch.setattr(
        InferenceModel, "decode", lambda self, token_B, *rest: steps.append(len(token_B)) or step(self, token_B, *rest)
    )
    context = make_prompt(policy, "1+2=").token_ids
    requests = [[Request(context, i, Sampling(i + 1), seed=0)] for i in range(8)]
    finished = run_block(LocalEngine(policy, max_sequences=4), requests)
    assert [len(one.token_ids) for (one,) in finished] == [1, 2, 3, 4, 5, 6, 7, 8]
    # A row's first token is sampled from the prefill, so decoding takes one step fewer than there are tokens.
    assert steps == [3, 3, 3, 3, 4, 3, 3, 2, 2, 1, 1]
