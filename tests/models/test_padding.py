"""The padding token of reward models: transformers reads a score at the last token that is not padding."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    AutoTokenizer,
)

from sharpen.models.adapter import adapter_weights
from sharpen.models.lora import add_adapter
from sharpen.models.merge import merge
from sharpen.models.padding import same_tokens
from sharpen.models.policy import load_policy
from sharpen.models.scorer import Kind, Scorer, load_scorer
from sharpen.rewards import Reward, resolve_reward
from sharpen.types import Finish, Group, Prompt, single_turn
from tiny_models import EOS, tiny_folder, without_padding

PROMPT = "1+2="
# Of different lengths; the last one was cut off, and ends with a token that may be anything.
TEXTS = ["3<eos>", "#7-4=3;ab<eos>", "<eos>", "12#<unk>"]


def folder_of(path: Path, *, architecture: str = "llama", rows: int | None = None, **special: Any) -> Path:
    """A language model that pads with its end-of-sequence token; see `without_padding`."""
    windows = {"sliding_window": 4} if architecture == "gemma3_text" else {}
    tiny_folder(path, architecture, **windows)
    if rows is not None:
        model = AutoModelForCausalLM.from_pretrained(path)
        model.resize_token_embeddings(rows)
        model.save_pretrained(path)
    return without_padding(path, **special)


def edit(path: Path, **changes: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def with_head(scorer: Scorer) -> Scorer:
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        scorer.head.weight.copy_(torch.randn(scorer.head.weight.shape, generator=generator))
    return scorer


def scored_here(folder: Path, policy: Any) -> list[float]:
    reward: Reward = resolve_reward({"name": "reward_model", "path": str(folder), "device": "cpu"})
    reward.use_tokenizer(policy)
    prompt_ids = tuple(policy(PROMPT)["input_ids"])
    completions = []
    for text in TEXTS:
        ids = tuple(policy(text)["input_ids"])
        finish = Finish.EOS if text.endswith("<eos>") else Finish.LENGTH
        completions.append(single_turn(prompt_ids, ids, text, finish=finish))
    prompt = Prompt(PROMPT, prompt_ids, PROMPT, {"prompt": PROMPT})
    (scores,) = reward.score([Group(prompt, tuple(completions))])
    totals = [score.total for score in scores]
    assert all(total is not None for total in totals)
    return [float(total) for total in totals if total is not None]


@torch.no_grad()
def scored_by_transformers(folder: Path, side: str | None) -> list[float]:
    """One text at a time if ``side`` is None, else one batch padded on that side."""
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    texts = [PROMPT + text for text in TEXTS]
    if side is None:
        return [float(model(**tokenizer(text, return_tensors="pt")).logits[0, 0]) for text in texts]
    batch = tokenizer(texts, padding=True, padding_side=side, return_tensors="pt")
    found: list[float] = model(**batch).logits[:, 0].tolist()
    return found


# What the tokenizer says of padding, and what becomes of it: the name of the token, its number, the embedding's rows.
FAMILIES: dict[str, tuple[dict[str, Any], tuple[str, int, int]]] = {
    "ends with its padding": ({}, ("<|pad|>", 20, 21)),
    "has rows to spare": ({"rows": 32}, ("<|pad|>", 20, 32)),
    "has none": ({"pad_token": None, "config_pad": None}, ("<|pad|>", 20, 21)),
    "has none, but its configuration has": ({"pad_token": None, "config_pad": 0}, ("<bos>", 0, 20)),
    "has a token of that name": ({"names": ("<|vision_pad|>", "<eos>", "<unk>")}, ("<|vision_pad|>", 0, 20)),
    "has one in reserve": (
        {"names": ("<|reserved_special_token|>", "<eos>", "<unk>")},
        ("<|reserved_special_token|>", 0, 20),
    ),
    "pads with the start": ({"pad_token": "<bos>", "config_pad": 0, "bos_token": "<bos>"}, ("<bos>", 0, 20)),
    "pads with what it does not know": ({"pad_token": "<unk>", "config_pad": 2}, ("<|pad|>", 20, 21)),
}


@pytest.mark.parametrize("family", FAMILIES)
def test_transformers_gives_the_same_score(family: str, tmp_path: Path) -> None:
    settings, (name, pad_id, rows) = FAMILIES[family]
    base = folder_of(tmp_path / "base", **settings)
    policy = AutoTokenizer.from_pretrained(base)
    scorer = with_head(load_scorer(base, kind="sequence", device="cpu"))
    scorer.save(tmp_path / "saved")
    saved = AutoTokenizer.from_pretrained(tmp_path / "saved")
    assert (saved.pad_token, saved.pad_token_id, scorer.pad_id) == (name, pad_id, pad_id)
    assert len(scorer.model.get_input_embeddings().weight) == scorer.config.vocab_size == rows
    here = scored_here(tmp_path / "saved", policy)
    assert len({round(score, 3) for score in here}) == len(TEXTS)
    for side in (None, "right", "left"):
        assert scored_by_transformers(tmp_path / "saved", side) == pytest.approx(here, rel=1e-5, abs=1e-5), side


@pytest.mark.parametrize("architecture", ["gpt2", "opt", "gemma3_text", "mixtral"])
def test_transformers_gives_the_same_score_for_other_architectures(architecture: str, tmp_path: Path) -> None:
    """GPT-2 has absolute positions, which padding on the left would shift."""
    base = folder_of(tmp_path / "base", architecture=architecture)
    with_head(load_scorer(base, kind="sequence", device="cpu")).save(tmp_path / "saved")
    here = scored_here(tmp_path / "saved", AutoTokenizer.from_pretrained(base))
    for side in (None, "right", *(() if architecture == "gpt2" else ("left",))):
        assert scored_by_transformers(tmp_path / "saved", side) == pytest.approx(here, rel=1e-5, abs=1e-5), side


def test_a_token_that_ends_a_turn_or_a_completion_pads_nothing(tmp_path: Path) -> None:
    """A token of the chat template, and one of several end-of-sequence tokens of the generation configuration."""
    for case in ("template", "generation", "configuration"):
        base = folder_of(tmp_path / case, pad_token="<bos>", config_pad=0)
        if case == "template":
            (base / "chat_template.jinja").write_text("{% for m in messages %}{{ m['content'] }}<bos>{% endfor %}")
        else:
            edit(base / ("generation_config.json" if case == "generation" else "config.json"), eos_token_id=[EOS, 0])
        scorer = load_scorer(base, kind="sequence", device="cpu")
        assert (scorer.tokenizer.pad_token, scorer.pad_id) == ("<|pad|>", 20)


def test_a_reward_model_of_the_hub_keeps_its_padding(tmp_path: Path) -> None:
    base = tiny_folder(tmp_path / "base")
    before = load_scorer(base, kind="sequence", device="cpu")
    assert (before.tokenizer.pad_token, before.pad_id, before.config.pad_token_id) == ("<pad>", 0, 0)
    assert len(before.model.get_input_embeddings().weight) == 20
    # Where the tokenizer alone names it, the configuration is told.
    edit(base / "config.json", pad_token_id=None)
    assert load_scorer(base, kind="sequence", device="cpu").config.pad_token_id == 0


def test_the_new_embedding_is_0_and_uses_no_random_numbers(tmp_path: Path) -> None:
    base = folder_of(tmp_path / "base")
    state = torch.get_rng_state()
    scorer = load_scorer(base, kind="sequence", device="cpu")
    assert torch.equal(torch.get_rng_state(), state)
    rows = scorer.model.get_input_embeddings().weight
    expected = load_policy(base, device="cpu").model.get_input_embeddings().weight
    assert torch.equal(rows[:20], expected)
    assert not rows[20].any()
    assert rows.requires_grad


def test_a_saved_scorer_loads_unchanged(tmp_path: Path) -> None:
    base = folder_of(tmp_path / "base")
    with_head(load_scorer(base, kind="sequence", device="cpu")).save(tmp_path / "first")
    again = load_scorer(tmp_path / "first", kind="sequence", device="cpu")
    again.save(tmp_path / "second")
    names = {file.name for file in (tmp_path / "first").iterdir()}
    assert names == {file.name for file in (tmp_path / "second").iterdir()}
    for name in names:
        assert (tmp_path / "first" / name).read_bytes() == (tmp_path / "second" / name).read_bytes(), name
    assert again.model.get_input_embeddings().padding_idx == again.pad_id == 20


def test_a_merged_adapter_gives_the_same_score(tmp_path: Path) -> None:
    base = folder_of(tmp_path / "base")
    scorer = load_scorer(base, kind="sequence", device="cpu")
    add_adapter(scorer, rank=3, alpha=5, targets="all-linear", seed=1)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in adapter_weights(scorer.model, scorer.head_name).values():
            parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
    scorer.save(tmp_path / "adapter")
    here = scored_here(tmp_path / "adapter", AutoTokenizer.from_pretrained(base))
    merge(tmp_path / "adapter", tmp_path / "merged")
    for side in (None, "right", "left"):
        assert scored_by_transformers(tmp_path / "merged", side) == pytest.approx(here, rel=1e-5, abs=1e-5)
    # The adapter alone, as the documentation says to load it.
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "adapter")
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "adapter", num_labels=1)
    model.resize_token_embeddings(len(tokenizer))
    model.config.pad_token_id = tokenizer.pad_token_id
    batch = tokenizer([PROMPT + text for text in TEXTS], padding=True, return_tensors="pt")
    with torch.no_grad():
        found = model.eval()(**batch).logits[:, 0].tolist()
    assert found == pytest.approx(here, rel=1e-5, abs=1e-5)


@pytest.mark.parametrize("pad", ["<eos>", None])
def test_a_scorer_of_tokens_pads_with_any_token(pad: str | None, tmp_path: Path) -> None:
    """Scores do not depend on the padding token; vocabulary and configuration do not change."""
    base = folder_of(tmp_path / "base", pad_token=pad, config_pad=None)
    scorer = with_head(load_scorer(base, kind="token", device="cpu"))
    scorer.save(tmp_path / "saved")
    assert len(scorer.tokenizer) == len(scorer.model.get_input_embeddings().weight) == 20
    assert (scorer.config.pad_token_id, scorer.model.get_input_embeddings().padding_idx) == (None, None)
    model = AutoModelForTokenClassification.from_pretrained(tmp_path / "saved").eval()
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "saved")
    texts = [PROMPT + text for text in TEXTS]
    alone = [scorer.model(**tokenizer(text, return_tensors="pt")).logits[0, :, 0] for text in texts]
    assert min(one.std().item() for one in alone) > 0.1
    for side in ("right", "left"):
        batch = tokenizer(texts, padding=True, padding_side=side, return_tensors="pt")
        with torch.no_grad():
            together = model(**batch).logits[..., 0]
        for one, row, mask in zip(alone, together, batch["attention_mask"], strict=True):
            torch.testing.assert_close(row[mask.bool()], one.detach(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("of", "kind"), [("sequence", "token"), ("token", "sequence")])
def test_either_kind_loads_from_the_other(of: Kind, kind: Kind, tmp_path: Path) -> None:
    base = folder_of(tmp_path / "base")
    first = with_head(load_scorer(base, kind=of, device="cpu"))
    first.save(tmp_path / "first")
    second = load_scorer(tmp_path / "first", kind=kind, device="cpu")
    assert torch.equal(second.head.weight, first.head.weight)
    assert second.tokenizer.pad_token == "<|pad|>"


def test_an_additional_padding_token_is_the_same_vocabulary(tmp_path: Path) -> None:
    policy = AutoTokenizer.from_pretrained(folder_of(tmp_path / "base"))
    scorer = load_scorer(tmp_path / "base", kind="sequence", device="cpu").tokenizer
    assert len(scorer) == len(policy) + 1
    assert same_tokens(scorer, policy)
    assert same_tokens(policy, policy)
    other = AutoTokenizer.from_pretrained(tmp_path / "base")
    other.add_tokens("ab")
    assert not same_tokens(other, policy)
    assert not same_tokens(scorer, other)
    assert not same_tokens(AutoTokenizer.from_pretrained(tiny_folder(tmp_path / "other")), policy)
