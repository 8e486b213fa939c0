"""Reward models and critics: scores, loading and saving."""

import json
import logging
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModelForSequenceClassification, AutoModelForTokenClassification, AutoTokenizer

from sharpen.batch import Batch
from sharpen.errors import ModelError
from sharpen.models.modules import ScorerModule
from sharpen.models.packing.microbatches import Cost, Planner
from sharpen.models.scorer import Kind, Scorer, load_scorer
from tiny_models import (
    assert_same_gradients,
    gradients,
    loaded_scorer,
    prefix_of_each,
    ragged_batch,
    tiny_folder,
    weighted,
)

BOTH = frozenset({"scores", "values"})
FREE_ATTENTION = Cost(per_token=1.0, per_pair=0.0)
SEQUENCE = ["llama", "qwen2", "qwen3", "olmo2", "mistral", "gpt2", "opt", "gemma3_text", "mixtral", "qwen2_moe"]
TOKEN = ["llama", "qwen2", "qwen3", "mistral", "gpt2", "mixtral", "qwen2_moe"]
CASES = [("sequence", a) for a in SEQUENCE] + [("token", a) for a in TOKEN]
SETTINGS = {"gemma3_text": {"sliding_window": 4}}


def batch_without_padding_tokens(seed: int = 0) -> Batch:
    """transformers reads the score at the last token that is not padding."""
    batch = ragged_batch(20, seed=seed)
    return replace(batch, tokens_ET=batch.tokens_ET.clamp(min=1))


def own_scores(scorer: Scorer, ids: Tensor) -> Tensor:
    """The score at each position by the model's own forward pass; of kind "sequence", one prefix at a time."""
    if scorer.kind == "token":
        return scorer.model(input_ids=ids[None]).logits[0, :, 0]
    return torch.stack([scorer.model(input_ids=ids[None, : k + 1]).logits[0, 0] for k in range(len(ids))])


def all_outputs(scorer: Scorer, batch: Batch, tokens: int = 10_000, shared: bool = True) -> tuple[Tensor, Tensor]:
    scores, values = torch.zeros(2, *batch.tokens_ET.shape, dtype=torch.float64)
    limits = {"tokens_per_microbatch": tokens, "shared": shared and scorer.plain, "padded": not scorer.plain}
    for rows in Planner().plan(batch, cost=FREE_ATTENTION, **limits):
        outputs = scorer.outputs(batch, rows, 1.0, BOTH)
        scores, values = scores + outputs["scores"], values + outputs["values"]
    return scores, values


@pytest.mark.parametrize(("kind", "architecture"), CASES)
def test_scores_and_values_equal_the_models_own_forward_packed_or_not(
    kind: Kind, architecture: str, tmp_path: Path
) -> None:
    scorer = loaded_scorer(tmp_path / "model", kind, architecture, **SETTINGS.get(architecture, {}))
    if architecture in ("mixtral", "qwen2_moe"):
        # Grouped products of experts have no float64.
        scorer.model.config._experts_implementation = "eager"
    scorer.model.double()
    batch = batch_without_padding_tokens()
    weights_ET = weighted(batch)
    scores, values = [], []
    for tokens, prefix in zip(batch.tokens_ET, prefix_of_each(batch), strict=True):
        p = len(prefix)
        ids = torch.cat([prefix.clamp(min=1), tokens])
        own = own_scores(scorer, ids)
        scores.append(own[p:])
        values.append(own[p - 1 : -1])
    batch = replace(batch, prefixes=tuple(prefix.clamp(min=1) for prefix in batch.prefixes))
    own_scores_ET, own_values_ET = torch.stack(scores), torch.stack(values)
    (weights_ET * (own_scores_ET + 2 * own_values_ET)).sum().backward()
    expected = gradients(scorer.model)

    assert scorer.plain is (architecture in ("llama", "qwen2", "qwen3", "olmo2", "mistral"))
    for shared in (True, False):
        scorer.model.zero_grad()
        scores_ET, values_ET = all_outputs(scorer, batch, 40, shared)
        (weights_ET * (scores_ET + 2 * values_ET)).sum().backward()
        # The norms of these models compute in float32 even here.
        torch.testing.assert_close(scores_ET, own_scores_ET.detach() * batch.mask_ET, rtol=2e-6, atol=2e-5)
        torch.testing.assert_close(values_ET, own_values_ET.detach() * batch.mask_ET, rtol=2e-6, atol=2e-5)
        assert_same_gradients(gradients(scorer.model), expected, 5e-6)


def test_only_needed_outputs_and_none_that_a_scorer_lacks(tmp_path: Path) -> None:
    scorer, batch = loaded_scorer(tmp_path / "model", "token"), ragged_batch(20)
    (rows,) = Planner().plan(batch, tokens_per_microbatch=10_000, shared=True, cost=scorer.cost, padded=False)
    outputs = scorer.outputs(batch, rows, 1.0, frozenset({"values"}))
    assert set(outputs) == {"values"}
    with pytest.raises(ValueError, match="not entropy, logprobs"):
        scorer.outputs(batch, rows, 1.0, frozenset({"logprobs", "entropy", "values"}))


def whole_sequences(batch: Batch) -> tuple[Tensor, Tensor, list[int], Batch]:
    """Prompt and completion of each sequence, padded by 0 on the right, all of the completion trained on."""
    length_E = [3 + b % 6 for b in range(len(batch))]
    whole = replace(batch, mask_ET=torch.arange(8) < torch.tensor(length_E)[:, None])
    sequences = [
        torch.cat([prefix.clamp(min=1), batch.tokens_ET[b, : length_E[b]]])
        for b, prefix in enumerate(prefix_of_each(batch))
    ]
    ids = torch.nn.utils.rnn.pad_sequence(sequences, batch_first=True)
    whole = replace(whole, prefixes=tuple(prefix.clamp(min=1) for prefix in batch.prefixes))
    attention = torch.arange(ids.shape[1]) < torch.tensor([len(s) for s in sequences])[:, None]
    return ids, attention, length_E, whole


@pytest.mark.parametrize("architecture", SEQUENCE)
def test_plain_transformers_gives_the_same_reward_for_a_padded_batch(architecture: str, tmp_path: Path) -> None:
    scorer = loaded_scorer(tmp_path / "model", "sequence", architecture, **SETTINGS.get(architecture, {}))
    scorer.save(tmp_path / "saved")
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "saved")
    assert model.config.num_labels == 1
    assert AutoTokenizer.from_pretrained(tmp_path / "saved")("1+2")["input_ids"] == scorer.tokenizer("1+2")["input_ids"]
    ids, attention, length_E, batch = whole_sequences(batch_without_padding_tokens())
    with torch.no_grad():
        theirs = model(input_ids=ids, attention_mask=attention).logits[:, 0]
        scores_ET, _ = all_outputs(scorer, batch)
    last = torch.tensor(length_E) - 1
    assert theirs.std() > 0.1
    torch.testing.assert_close(scores_ET[torch.arange(len(last)), last].float(), theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("architecture", TOKEN)
def test_plain_transformers_gives_the_same_score_at_each_token(architecture: str, tmp_path: Path) -> None:
    scorer = loaded_scorer(tmp_path / "model", "token", architecture)
    scorer.save(tmp_path / "saved")
    model = AutoModelForTokenClassification.from_pretrained(tmp_path / "saved")
    ids, attention, length_E, batch = whole_sequences(batch_without_padding_tokens())
    with torch.no_grad():
        theirs = model(input_ids=ids, attention_mask=attention).logits[..., 0]
        scores_ET, _ = all_outputs(scorer, batch)
    for b, prefix in enumerate(prefix_of_each(batch)):
        p, n = len(prefix), length_E[b]
        torch.testing.assert_close(scores_ET[b, :n].float(), theirs[b, p : p + n], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
@pytest.mark.parametrize("kind", ["sequence", "token"])
def test_a_language_model_loads_as_a_scorer_that_gives_0(
    kind: Kind, architecture: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tiny_folder(tmp_path / "model", architecture, tie_word_embeddings=True)
    state = torch.get_rng_state()
    with caplog.at_level(logging.WARNING):
        scorer = load_scorer(folder, kind=kind, device="cpu")
    assert caplog.records == []
    assert torch.equal(torch.get_rng_state(), state)
    assert not any(parameter.any() for parameter in scorer.head.parameters())
    assert (scorer.head.bias is None) is (kind == "sequence")
    saved = load_file(folder / "model.safetensors")
    backbone = {f"{scorer.model.base_model_prefix}.{n}": p for n, p in scorer.model.base_model.named_parameters()}
    assert len(backbone) > 10
    assert all(torch.equal(tensor, saved[name]) for name, tensor in backbone.items())
    assert len(scorer.parameters()) == len(backbone) + sum(1 for _ in scorer.head.parameters())
    assert all(p.requires_grad and p.dtype == torch.float32 for p in scorer.parameters())


@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
@pytest.mark.parametrize("kind", ["sequence", "token"])
def test_a_saved_scorer_loads_unchanged(kind: Kind, architecture: str, tmp_path: Path) -> None:
    scorer = loaded_scorer(tmp_path / "model", kind, architecture)
    scorer.save(tmp_path / "saved")
    again = load_scorer(tmp_path / "saved", kind=kind, device="cpu")
    ours, theirs = scorer.model.state_dict(), again.model.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert (again.kind, again.pad_id, again.context_length) == (kind, 0, 128)


@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
@pytest.mark.parametrize(("of", "kind"), [("sequence", "token"), ("token", "sequence")])
def test_a_scorer_of_one_kind_loads_as_the_other(of: Kind, kind: Kind, architecture: str, tmp_path: Path) -> None:
    """GPT-2 names the two kinds' heads ``score`` and ``classifier``."""
    scorer = loaded_scorer(tmp_path / "model", of, architecture)
    scorer.save(tmp_path / "saved")
    other = load_scorer(tmp_path / "saved", kind=kind, device="cpu")
    assert torch.equal(other.head.weight, scorer.head.weight)
    assert other.head.weight.any()
    if kind == "token":
        assert other.head.bias.tolist() == [0.0]
    batch = batch_without_padding_tokens()
    shift = scorer.head.bias.item() if of == "token" else 0.0
    with torch.no_grad():
        found, expected = all_outputs(other, batch)[0], all_outputs(scorer, batch)[0]
    torch.testing.assert_close(found, (expected - shift) * batch.mask_ET, rtol=1e-6, atol=1e-5)


def edit(path: Path, **changes: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_models_that_cannot_become_a_scorer_are_errors(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no ForTokenClassification for models of type olmo2"):
        load_scorer(tiny_folder(tmp_path / "olmo2", "olmo2"), kind="token")
    with pytest.raises(ModelError, match="nowhere: not a model folder: there is no such folder"):
        load_scorer(tmp_path / "nowhere", kind="token")
    folder = tmp_path / "llama"
    loaded_scorer(tmp_path / "model", "sequence").save(folder)
    config = (folder / "config.json").read_text()
    edit(folder / "config.json", id2label={"0": "bad", "1": "good"}, label2id={"bad": 0, "good": 1})
    with pytest.raises(ModelError, match="has 2 labels"):
        load_scorer(folder, kind="sequence")
    (folder / "config.json").write_text(config)
    weights = load_file(folder / "model.safetensors")
    for missing in ("score.weight", "model.norm.weight"):
        save_file({n: t for n, t in weights.items() if n != missing}, folder / "model.safetensors", {"format": "pt"})
        for kind in ("sequence", "token"):
            with pytest.raises(ModelError, match=rf"lack 1 of its weights \({missing}\)"):
                load_scorer(folder, kind=kind)


def test_bfloat16_differs_by_its_rounding_only(tmp_path: Path) -> None:
    exact = loaded_scorer(tmp_path / "model", "token")
    rounded = replace(exact, root=ScorerModule(exact.model, "bfloat16"))
    batch = batch_without_padding_tokens()
    for mine, theirs in zip(all_outputs(rounded, batch), all_outputs(exact, batch), strict=True):
        assert 0 < (mine - theirs).abs().max() < 8 * 2**-8 * theirs.abs().max()
