"""The kernel of a GPU's decoding step, run by Triton's interpreter, against plain softmax attention.

Triton has to be told before it is imported, so `test_one_kernel` runs these in a process of their own.
"""

import pytest
import torch
from test_decoder import Sequences, advanced
from torch import Tensor

from sharpen.rollout.local import model_runner as decoder_module
from sharpen.rollout.local.decode_kernel import attend_one_token
from sharpen.rollout.local.model_runner import Decoder, PackedRunner
from sharpen.rollout.local.triton_kv_cache import TritonKVCache
from tiny_models import make_prompt, tiny_policy


def mixed(q_D: Tensor, keys_LD: Tensor, values_LD: Tensor, scale: float) -> Tensor:
    return (scale * keys_LD.double() @ q_D.double()).softmax(dim=0) @ values_LD.double()


@pytest.mark.parametrize(("key_heads", "share", "size"), [(2, 3, 16), (1, 6, 64), (2, 1, 24), (1, 20, 8)])
def test_a_row_sees_its_prompt_its_own_tokens_and_the_new_one(key_heads: int, share: int, size: int) -> None:
    draw = torch.Generator().manual_seed(size)
    heads, rows, room = key_heads * share, 5, 130
    # Rows behind one another that hold all three, as a layer gives them.
    qkv = torch.randn(rows, heads + 2 * key_heads, size, generator=draw)
    q, k, v = qkv.split((heads, key_heads, key_heads), dim=1)
    keys, values = torch.randn(2, rows, key_heads, room, size, generator=draw)
    prompt_keys, prompt_values = torch.randn(2, 3, key_heads, 70, size, generator=draw)
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
            g = head // share
            seen = [
                torch.cat([of_prompt[p, g, : lengths[p]], own[b, g, : slot + 1]])
                for of_prompt, own in ((prompt_keys, keys), (prompt_values, values))
            ]
            expected = mixed(q[b, head], *seen, 0.3)
            torch.testing.assert_close(found.view(rows, heads, size)[b, head].double(), expected, rtol=0, atol=1e-5)
    assert torch.equal(stored[0], keys)
    assert torch.equal(stored[1], values)


def test_logits_are_those_of_the_whole_sequence(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows join, leave and change their order; there is room for more tokens than for those in need of it at first."""
    monkeypatch.setattr(decoder_module, "compiles", lambda _: True)
    monkeypatch.setattr("sharpen.rollout.local.triton_kv_cache.LEAST_ROOM", 2)
    policy = tiny_policy("qwen3")
    decoding, slow = PackedRunner(Decoder(policy), room=9), Sequences(policy)
    assert isinstance(decoding._past, TritonKVCache)
    first, second = ([make_prompt(policy, t) for t in texts] for texts in (("1+2=", "7"), ("9-9", "12345+6789=")))

    def close(found: Tensor, expected: Tensor) -> None:
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)

    with torch.no_grad():
        close(decoding.admit(first, [2, 2]), slow.admit(first, [2, 2]))
        for _ in range(3):
            token_B, expected = slow.advance()
            close(advanced(decoding, token_B), expected)
        stay = torch.tensor([3, 2])
        decoding.keep(stay)
        slow.tokens = [slow.tokens[b] for b in stay.tolist()]
        close(decoding.admit(second, [1, 2]), slow.admit(second, [1, 2]))
        for _ in range(3):
            token_B, expected = slow.advance()
            close(advanced(decoding, token_B), expected)
