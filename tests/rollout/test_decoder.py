"""The decoder against the model's own forward pass over whole sequences, while rows join, leave and are reordered."""

import pytest
import torch
from torch import Tensor

from sharpen.models.policy import Policy
from sharpen.rollout.engine import Sampling
from sharpen.rollout.local import model_runner as decoder_module
from sharpen.rollout.local import projections as products
from sharpen.rollout.local import torch_kv_cache as grid_past
from sharpen.rollout.local.engine import LocalEngine
from sharpen.rollout.local.model_runner import Decoder, PackedRunner
from sharpen.rollout.local.projections import Copied
from sharpen.types import Prompt
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
"""The norms of transformers round to float32 whatever the model computes in."""


class Sequences:
    """What each row has been given so far, and the logits that the model's own forward pass gives for it."""

    def __init__(self, policy: Policy) -> None:
        self.policy, self.tokens = policy, list[list[int]]()
        self.generator = torch.Generator().manual_seed(0)

    def admit(self, prompts: list[Prompt], copies: list[int]) -> Tensor:
        new = [list(p.token_ids) for p, n in zip(prompts, copies, strict=True) for _ in range(n)]
        self.tokens += new
        return self.logits(new)

    def advance(self) -> tuple[Tensor, Tensor]:
        token_B = torch.randint(2, 19, (len(self.tokens),), generator=self.generator)
        self.tokens = [[*row, token] for row, token in zip(self.tokens, token_B.tolist(), strict=True)]
        return token_B, self.logits(self.tokens)

    def logits(self, rows: list[list[int]]) -> Tensor:
        with torch.no_grad():
            return torch.stack([self.policy.model(input_ids=torch.tensor([row])).logits[0, -1] for row in rows])


def advanced(decoding: PackedRunner, token_B: Tensor) -> Tensor:
    decoding.make_room()
    return decoding.advance(token_B)


@pytest.mark.parametrize("block", [1, 4, 16])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_logits_are_those_of_the_whole_sequence(name: str, block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grid_past, "CPU_BLOCK", block)
    architecture, settings = ARCHITECTURES[name]
    policy = tiny_policy(architecture, dtype=torch.float64, **settings)
    decoding, slow = PackedRunner(Decoder(policy), room=12), Sequences(policy)
    texts = ("1+2=", "7", "12345+6789=", "9-9", "00", "3+3=")
    first, second = [make_prompt(policy, t) for t in texts[:3]], [make_prompt(policy, t) for t in texts[3:]]

    def close(found: Tensor, expected: Tensor) -> None:
        torch.testing.assert_close(found, expected, rtol=0, atol=SLACK)

    def advance() -> None:
        token_B, expected = slow.advance()
        close(advanced(decoding, token_B), expected)

    with torch.no_grad():
        close(decoding.admit(first, [2, 2, 2]), slow.admit(first, [2, 2, 2]))
        for _ in range(3):
            advance()
        # Groups of different size, one prompt gone with both of its rows, the order turned.
        stay = torch.tensor([5, 4, 0])
        decoding.keep(stay)
        slow.tokens = [slow.tokens[b] for b in stay.tolist()]
        advance()
        # Others begin where these are in the middle.
        close(decoding.admit(second, [1, 3, 2]), slow.admit(second, [1, 3, 2]))
        for _ in range(4):
            advance()
        stay = torch.tensor([1, 3, 4, 5, 7, 8])
        decoding.keep(stay)
        slow.tokens = [slow.tokens[b] for b in stay.tolist()]
        advance()
        advance()


@pytest.fixture
def blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights are laid out for oneDNN, whatever the processor and their size."""
    if not torch.backends.mkldnn.is_available():
        pytest.skip("this torch has no oneDNN")
    monkeypatch.setattr(products, "_LEAST_NUMBERS", 0)
    monkeypatch.setattr(products, "amd_has_onednn", lambda: True)


def copied(decoder: Decoder) -> list[Copied]:
    return [product for product in decoder._products if isinstance(product, Copied)]


@pytest.mark.usefixtures("blocks")
@pytest.mark.parametrize("name", ["llama with biases, one kv head", "tied qwen3"])
def test_logits_by_copied_weights(name: str) -> None:
    architecture, settings = ARCHITECTURES[name]
    policy = tiny_policy(architecture, **settings)
    decoder, prompts = Decoder(policy), [make_prompt(policy, t) for t in ("1+2=", "7")]
    # Queries, keys and values; what comes out of attention; gate and up; down. And the head.
    assert len(copied(decoder)) == 4 * policy.config.num_hidden_layers + 1

    def check() -> None:
        decoding, slow = PackedRunner(decoder, room=4), Sequences(policy)
        torch.testing.assert_close(decoding.admit(prompts, [2, 1]), slow.admit(prompts, [2, 1]), rtol=0, atol=1e-5)
        token_B, expected = slow.advance()
        torch.testing.assert_close(advanced(decoding, token_B), expected, rtol=0, atol=1e-5)

    with torch.no_grad():
        check()
        for parameter in policy.model.parameters():
            parameter.mul_(0.9)
        decoder.release()
        check()


@pytest.mark.usefixtures("blocks")
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_after_a_call_no_copy_is_left_and_the_next_draws_from_the_present_weights(dtype: str) -> None:
    def drawn(engine: LocalEngine) -> tuple[float, ...]:
        ((completion,),) = engine.generate([make_prompt(policy, "1+2=")], [[0]], Sampling(4), seed=0)
        return completion.sample_logprobs

    if dtype == "bfloat16" and not products.onednn_computes_bfloat16():
        pytest.skip("oneDNN has no bfloat16 on this processor")
    policy = tiny_policy(compute_dtype=dtype)
    engine = LocalEngine(policy)
    before = drawn(engine)
    assert engine._decoder is not None
    assert copied(engine._decoder)
    assert all(product._kept is None for product in copied(engine._decoder))
    with torch.no_grad():
        for parameter in policy.model.parameters():
            parameter.mul_(0.9)
    assert drawn(engine) == drawn(LocalEngine(policy)) != before


def test_small_weights_and_float64_are_not_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not copied(Decoder(tiny_policy()))
    monkeypatch.setattr(products, "_LEAST_NUMBERS", 0)
    monkeypatch.setattr(products, "amd_has_onednn", lambda: True)
    assert not copied(Decoder(tiny_policy(dtype=torch.float64)))


def test_prompts_that_are_computed_in_several_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoder_module, "PREFILL_TOKENS", 12)
    policy = tiny_policy(dtype=torch.float64)
    prompts = [make_prompt(policy, t) for t in ("7", "12", "123", "1234", "12345", "123456", "1" * 40)]
    # Widths times rows: 3·3 fits and 4·4 does not; 5·2 fits and 6·3 does not; 40 is more than any and goes alone.
    assert decoder_module._passes([len(p.token_ids) for p in prompts]) == [(0, 3), (3, 5), (5, 6), (6, 7)]
    decoding, slow = PackedRunner(Decoder(policy), room=4), Sequences(policy)
    copies = [1, 2, 1, 3, 1, 2, 1]
    with torch.no_grad():
        torch.testing.assert_close(decoding.admit(prompts, copies), slow.admit(prompts, copies), rtol=0, atol=SLACK)
        token_B, expected = slow.advance()
        torch.testing.assert_close(advanced(decoding, token_B), expected, rtol=0, atol=SLACK)


def test_a_row_that_is_full_does_not_disturb_the_others() -> None:
    """Room for 3 tokens: the first row goes on past its end, the second begins later."""
    policy = tiny_policy(dtype=torch.float64)
    decoding, slow = PackedRunner(Decoder(policy), room=3), Sequences(policy)
    early, late = [make_prompt(policy, "1+2=")], [make_prompt(policy, "7")]
    with torch.no_grad():
        decoding.admit(early, [1])
        slow.admit(early, [1])
        for _ in range(3):
            token_B, expected = slow.advance()
            torch.testing.assert_close(advanced(decoding, token_B), expected, rtol=0, atol=SLACK)
        decoding.admit(late, [1])
        slow.admit(late, [1])
        for _ in range(3):
            token_B, expected = slow.advance()
            torch.testing.assert_close(advanced(decoding, token_B)[1], expected[1], rtol=0, atol=SLACK)


def test_a_prompt_is_computed_once_for_its_group(monkeypatch: pytest.MonkeyPatch) -> None:
    policy = tiny_policy()
    computed: list[int] = []
    forward = Decoder._forward

    def counting(self: Decoder, token_N: Tensor, *rest: object) -> Tensor:
        computed.append(len(token_N))
        return forward(self, token_N, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(Decoder, "_forward", counting)
    policy.eos_ids = frozenset()
    LocalEngine(policy).generate([make_prompt(policy, "123456=")], [range(5)], Sampling(4), seed=0)
    # 7 tokens of the prompt, then three steps of 5 rows: the fourth token is drawn and not read.
    assert computed == [7, 5, 5, 5]


def test_rows_that_end_give_their_place_to_prompts_that_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """8 completions of 1, 2, …, 8 tokens in 4 places.

    After token 1, the first row has ended: 3 of 4 are alive, and the completion of 5 tokens takes its place. After
    token 2 the second gives way to that of 6, after token 3 to that of 7, after token 4 to that of 8. Those end after
    tokens 1 + 5, 2 + 6, 3 + 7 and 4 + 8. Rows in step: 4 until token 5; the completion of 5 has ended after token 6,
    where 3 go on; that of 6 after token 8, where 2 go on; that of 7 after token 10, where 1 goes on, to token 12.
    """

    class Limited(LocalEngine):
        def limit(self, prompt: Prompt, draw_id: int, sampling: Sampling) -> int:
            return draw_id + 1

    policy = tiny_policy()
    policy.eos_ids = frozenset()
    steps: list[int] = []
    step = Decoder.step
    monkeypatch.setattr(
        Decoder, "step", lambda self, token_B, *rest: steps.append(len(token_B)) or step(self, token_B, *rest)
    )
    prompts = [make_prompt(policy, "1+2=")] * 8
    drawn = Limited(policy).generate(prompts, [[i] for i in range(8)], Sampling(8, max_sequences=4), seed=0)
    assert [len(c.token_ids) for (c,) in drawn] == [1, 2, 3, 4, 5, 6, 7, 8]
    # Rows that are admitted in a step draw their first token from their prompt, so they read one token less.
    assert steps == [3, 3, 3, 3, 4, 3, 3, 2, 2, 1, 1]
