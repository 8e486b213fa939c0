"""The Triton kernel of a decoding step, run by Triton's interpreter, against plain softmax attention.

The interpreter must be chosen before Triton is imported, so `test_decode_kernel` runs these tests in another process.
"""

from dataclasses import replace

import pytest
import torch
from test_conversations import SEED, check_logprobs, ids_of, next_turn
from test_model_runner import Sequences, decoded
from torch import Tensor

from sharpen.rollout.engine import Request, Sampling
from sharpen.rollout.generation import run_block
from sharpen.rollout.local import inference_model
from sharpen.rollout.local.decode_kernel import attend_one_token
from sharpen.rollout.local.engine import LocalEngine
from sharpen.rollout.local.inference_model import InferenceModel
from sharpen.rollout.local.model_runner import NativeRunner
from sharpen.rollout.local.triton_kv_cache import TritonKVCache
from tiny_models import make_prompt, tiny_policy


def attention(q_D: Tensor, keys_LD: Tensor, values_LD: Tensor, scale: float) -> Tensor:
    return (scale * keys_LD.double() @ q_D.double()).softmax(dim=0) @ values_LD.double()


@pytest.mark.parametrize(("kv_heads", "group", "size"), [(2, 3, 16), (1, 6, 64), (2, 1, 24), (1, 20, 8)])
def test_a_row_attends_to_its_prompt_its_own_tokens_and_the_new_one(kv_heads: int, group: int, size: int) -> None:
    generator = torch.Generator().manual_seed(size)
    heads, rows, room = kv_heads * group, 5, 130
    # Each row holds q, k and v side by side, as a layer computes them.
    qkv = torch.randn(rows, heads + 2 * kv_heads, size, generator=generator)
    q, k, v = qkv.split((heads, kv_heads, kv_heads), dim=1)
    keys, values = torch.randn(2, rows, kv_heads, room, size, generator=generator)
    prompt_keys, prompt_values = torch.randn(2, 3, kv_heads, 70, size, generator=generator)
    slots, prompts, lengths = [0, 1, 63, 64, 129], [2, 0, 0, 1, 2], [1, 64, 70]
    stored = keys.clone(), values.clone()
    found = attend_one_token(
        q,
        k,
        v,
        *stored,
        torch.tensor(slots),
        prompt_keys,
        prompt_values,
        torch.tensor(prompts),
        torch.tensor([lengths[p] for p in prompts]),
        0.3,
    )
    for b, (slot, p) in enumerate(zip(slots, prompts, strict=True)):
        keys[b, :, slot], values[b, :, slot] = k[b], v[b]
        for head in range(heads):
            g = head // group
            seen = [
                torch.cat([of_prompt[p, g, : lengths[p]], own[b, g, : slot + 1]])
                for of_prompt, own in ((prompt_keys, keys), (prompt_values, values))
            ]
            expected = attention(q[b, head], *seen, 0.3)
            torch.testing.assert_close(found.view(rows, heads, size)[b, head].double(), expected, rtol=0, atol=1e-5)
    assert torch.equal(stored[0], keys)
    assert torch.equal(stored[1], values)


def test_logits_equal_those_of_a_forward_pass_over_the_whole_sequence(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows are added, removed and reordered, and the cache grows."""
    monkeypatch.setattr(inference_model, "compiles", lambda _: True)
    monkeypatch.setattr("sharpen.rollout.local.triton_kv_cache.MIN_CAPACITY", 2)
    policy = tiny_policy("qwen3")
    runner, reference = NativeRunner(InferenceModel(policy), max_new_tokens=9), Sequences(policy)
    assert isinstance(runner._cache, TritonKVCache)
    texts = ("1+2=", "7"), ("9-9", "12345+6789=")
    first, second = ([make_prompt(policy, t).token_ids for t in part] for part in texts)

    def close(found: Tensor, expected: Tensor) -> None:
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)

    with torch.no_grad():
        close(runner.prefill(first, [2, 2]), reference.prefill(first, [2, 2]))
        for _ in range(3):
            token_B, expected = reference.step()
            close(decoded(runner, token_B), expected)
        index_B = torch.tensor([3, 2])
        runner.select_rows(index_B)
        reference.tokens = [reference.tokens[b] for b in index_B.tolist()]
        close(runner.prefill(second, [1, 2]), reference.prefill(second, [1, 2]))
        for _ in range(3):
            token_B, expected = reference.step()
            close(decoded(runner, token_B), expected)


def test_conversations_within_a_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys are kept as this cache stores them; a row is preempted; the cache never holds more than it may."""
    monkeypatch.setattr(inference_model, "compiles", lambda _: True)
    monkeypatch.setattr("sharpen.rollout.local.triton_kv_cache.MIN_CAPACITY", 2)
    monkeypatch.setattr("sharpen.rollout.local.kv_cache.MIN_HEADROOM", 2)
    policy = tiny_policy("qwen3")
    policy.eos_ids = frozenset()
    engine = LocalEngine(policy, kv_gib=40 * 128 / 2**30)
    held: list[int] = []
    reserve = TritonKVCache.reserve

    def watched(self: TritonKVCache, slots: int | None = None) -> None:
        reserve(self, slots)
        held.append(self.slots + engine._kept.slots)

    monkeypatch.setattr(TritonKVCache, "reserve", watched)
    texts = ("1+2=", "7")
    requests = [Request(ids_of(policy, text), i, Sampling(7), SEED, keep=True) for i, text in enumerate(texts)]
    [one] = run_block(engine, [requests])
    [two] = run_block(engine, [next_turn(policy, one, ["5", "#12-3"])])
    check_logprobs(policy, [*one, *two])
    # Of each first turn all but the last token drawn: 4 + 6 and 1 + 6.
    assert engine.counters.reused_tokens == 17
    engine.release([0, 1])
    # Two contexts in 4 slots each, and two rows of 17 decoded tokens, are too many.
    [three] = run_block(engine, [[replace(r, sampling=Sampling(18), draw_id=r.draw_id + 2) for r in requests]])
    check_logprobs(policy, three)
    assert engine.counters.preemptions == 1
    assert max(held) <= 40
