"""Each architecture: trainer, sampler and the model's own forward agree; what is saved is the same, and stops."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForImageTextToText

from one_thread import one_thread as one_thread
from sharpen.data.collate import collate
from sharpen.models.forward import MicrobatchLimits, all_outputs
from sharpen.models.modules import PLAIN_ARCHITECTURES
from sharpen.models.policy import Policy, load_policy
from sharpen.rollout.engine import Sampling
from sharpen.rollout.generation import generate
from sharpen.rollout.local.engine import LocalEngine
from sharpen.types import Finish, Group
from tiny_architectures import READS_IMAGES
from tiny_models import make_prompt, own_logprobs, tiny_folder

TEXTS = ("1+2=", "7", "12345+6789=", "9-9", "0000000", "3+3=")
ENDS = [1, 5, 9, 13]
"""Several, so that sequences end early and at different times."""

WITH_CACHE = (
    "llama",
    "qwen2",
    "qwen3",
    "olmo2",
    "mistral",
    "bamba",
    "bloom",
    "cohere2",
    "deepseek_v3",
    "falcon_h1",
    "gemma2",
    "gemma3",
    "gemma3n_text",
    "gemma4_text",
    "glm4_moe",
    "gpt2",
    "gpt_neox",
    "gpt_oss",
    "granitemoehybrid",
    "jamba",
    "lfm2",
    "llama4_text",
    "mamba2",
    "mistral3",
    "mixtral",
    "mpt",
    "opt",
    "phi3",
    "qwen2_5_vl",
    "qwen3_moe",
    "qwen3_next",
    "qwen3_vl",
)
WITHOUT_CACHE = ("mamba", "minimax", "nemotron_h", "recurrent_gemma", "rwkv", "xlstm", "zamba2")
"""transformers' cache is not theirs, or loses something with padding."""
SPREAD = {"gemma4_text": 0.2, "qwen3_next": 0.2, "xlstm": 0.1}
"""With larger weights, float32 rounds these by more than 1e-5."""
SEED = {"cohere2": 1, "recurrent_gemma": 1}
"""With which the most likely tokens come to an end."""


def folder_of(path: Path, name: str) -> Path:
    folder = tiny_folder(path, name, seed=SEED.get(name, 0), spread=SPREAD.get(name, 0.35))
    (folder / "generation_config.json").write_text(f'{{"eos_token_id": {ENDS}, "pad_token_id": 0}}')
    return folder


def own_greedy(model: torch.nn.Module, context: Sequence[int], limit: int) -> list[int]:
    """Token by token, with the whole sequence computed each time."""
    drawn: list[int] = []
    while len(drawn) < limit and not (drawn and drawn[-1] in ENDS):
        logits = model(input_ids=torch.tensor([[*context, *drawn]]), use_cache=False).logits[0, -1]
        drawn.append(int(logits.argmax()))
    return drawn


def check_agreement(policy: Policy) -> None:
    prompts = [make_prompt(policy, text) for text in TEXTS]
    ids = [range(100 * i, 100 * i + 4) for i in range(len(prompts))]
    completions = generate(LocalEngine(policy), prompts, ids, Sampling(12), 11)
    lengths = {len(one.token_ids) for group in completions for one in group}
    assert len(lengths) > 3
    for one in (one for group in completions for one in group):
        assert (one.samples[-1].finish is Finish.EOS) == (one.token_ids[-1] in ENDS)
    batch = collate([Group(p, c) for p, c in zip(prompts, completions, strict=True)])
    own_ET = torch.stack(own_logprobs(policy.model, batch, 1.0)) * batch.mask_ET
    torch.testing.assert_close(batch["rollout_logprobs"], own_ET, rtol=0, atol=1e-5)
    for limits in (MicrobatchLimits(60, True), MicrobatchLimits(10_000, False)):
        torch.testing.assert_close(all_outputs(policy, batch, "logprobs", 1.0, limits), own_ET, rtol=0, atol=1e-5)


def check_saved(policy: Policy, name: str, saved: Path) -> None:
    policy.save(saved)
    again = load_policy(saved, device="cpu")
    expected, found = policy.model.state_dict(), again.model.state_dict()
    assert expected.keys() == found.keys()
    assert all(torch.equal(found[key], weight) for key, weight in expected.items())
    assert again.eos_ids == policy.eos_ids == frozenset(ENDS)

    auto = AutoModelForImageTextToText if name in READS_IMAGES else AutoModelForCausalLM
    plain = auto.from_pretrained(saved)
    ended = 0
    for text in TEXTS:
        context = policy.tokenizer(text)["input_ids"]
        given = torch.tensor([context])
        drawn = plain.generate(
            input_ids=given, attention_mask=torch.ones_like(given), do_sample=False, max_new_tokens=12
        )[0, len(context) :].tolist()
        assert drawn == own_greedy(policy.model, context, 12)
        ended += drawn[-1] in ENDS
    assert ended


def test_the_page_on_models_has_them_all() -> None:
    page = (Path(__file__).parents[2] / "docs" / "models.md").read_text()
    table = [line.split("|")[2] for line in page.splitlines() if line.startswith("| ")][1:]
    plain, with_cache, without = ([name.split("`")[1] for name in row.split(",")] for row in table)
    assert sorted(PLAIN_ARCHITECTURES) == plain
    assert sorted(set(WITH_CACHE) - PLAIN_ARCHITECTURES) == with_cache
    assert sorted(WITHOUT_CACHE) == without


@pytest.mark.parametrize("name", [*WITH_CACHE, *WITHOUT_CACHE])
@torch.no_grad()
def test_an_architecture(name: str, tmp_path: Path) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        policy = load_policy(folder_of(tmp_path / "start", name), device="cpu")
        check_agreement(policy)
    slow = [str(warning.message) for warning in caught if "sampled from slowly" in str(warning.message)]
    assert len(slow) == (name in WITHOUT_CACHE)
    assert policy.context_length == 128
    check_saved(policy, name, tmp_path / "saved")
