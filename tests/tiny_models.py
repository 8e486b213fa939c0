"""Language models of a few thousand random weights, and hand-made steps of training for them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import torch
from tokenizers import Regex, Tokenizer
from tokenizers.decoders import Fuse
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Split
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    GenerationConfig,
    PreTrainedTokenizerFast,
)

from sharpen.batch import Batch, SampleIndex
from sharpen.methods import Method
from sharpen.models.character_model import character_tokenizer
from sharpen.models.forward import MicrobatchLimits
from sharpen.models.model import Model
from sharpen.models.modules import PolicyModule
from sharpen.models.policy import Policy, load_policy
from sharpen.models.progress_bars import without_progress_bars
from sharpen.models.scorer import Kind, Scorer, load_scorer
from sharpen.training.annotate import Annotator
from sharpen.training.learner import Learner
from sharpen.training.settings import OptimizerSettings
from sharpen.types import NOT_DRAWN, Group, Prompt
from tiny_architectures import READS_IMAGES, SIZES, USUAL

ALPHABET = "0123456789+-=;#ab"
EOS = 1


def tiny_model(architecture: str, *, seed: int = 0, spread: float = 0.35, **settings: Any) -> nn.Module:
    """A causal language model of random weights, large enough for its distributions to be far from flat."""
    tokenizer = character_tokenizer(ALPHABET, context=128)
    special = {"bos_token_id": None, "eos_token_id": EOS, "pad_token_id": 0}
    sizes = SIZES.get(architecture, USUAL)
    defaults = {"vocab_size": len(tokenizer), "sliding_window": None}
    config = AutoConfig.for_model(architecture, **{**defaults, **sizes, **special, **settings})
    auto = AutoModelForImageTextToText if architecture in READS_IMAGES else AutoModelForCausalLM
    with torch.random.fork_rng(devices=[]):
        # Some biases start at random.
        torch.manual_seed(seed)
        model = auto.from_config(config)
    model.generation_config = GenerationConfig.from_dict(special)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            # The scales of the norms start at 1 and biases at 0; all of them are moved.
            parameter.add_(0.1 * noise) if parameter.dim() < 2 else parameter.copy_(spread * noise)
    return model.eval()


def tiny_folder(path: Path, architecture: str = "llama", **settings: Any) -> Path:
    """An ordinary Hugging Face folder."""
    with without_progress_bars():
        tiny_model(architecture, **settings).save_pretrained(path)
        character_tokenizer(ALPHABET, context=128).save_pretrained(path)
    return path


def without_padding(folder: Path, alphabet: str = ALPHABET, **special: Any) -> Path:
    """Give a folder of this module a tokenizer of the same numbers without <pad>: token 0 is <bos>, padding is <eos>.

    ``special`` are the tokenizer's settings, ``names`` those of the tokens 0 to 2, ``config_pad`` what the
    configuration says.
    """
    names = special.pop("names", ("<bos>", "<eos>", "<unk>"))
    config = folder / "config.json"
    told = json.loads(config.read_text()) | {"pad_token_id": special.pop("config_pad", EOS)}
    config.write_text(json.dumps(told))
    tokens = dict.fromkeys((*names, *alphabet))
    characters = Tokenizer(WordLevel({token: i for i, token in enumerate(tokens)}, unk_token=names[2]))
    characters.pre_tokenizer = Split(Regex(r"[\s\S]"), behavior="isolated")
    characters.decoder = Fuse()
    settings = {"eos_token": "<eos>", "unk_token": names[2], "pad_token": "<eos>", **special}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=characters, model_max_length=128, **settings)
    tokenizer.add_tokens(list(names), special_tokens=True)
    tokenizer.save_pretrained(folder)
    return folder


def tiny_policy(architecture: str = "llama", *, dtype: torch.dtype = torch.float32, **settings: Any) -> Policy:
    compute_dtype = settings.pop("compute_dtype", "float32")
    model = tiny_model(architecture, **settings).to(dtype)
    return Policy(
        root=PolicyModule(model, compute_dtype),
        tokenizer=character_tokenizer(ALPHABET, context=128),
        eos_ids=frozenset({EOS}),
        pad_id=0,
        context_length=128,
        source="tiny",
    )


def loaded_policy(path: Path, architecture: str = "llama", **settings: Any) -> Policy:
    return load_policy(tiny_folder(path, architecture, **settings), device="cpu")


def loaded_scorer(path: Path, kind: Kind, architecture: str = "llama", **settings: Any) -> Scorer:
    """A scorer whose head is not 0."""
    scorer = load_scorer(tiny_folder(path, architecture, **settings), kind=kind, device="cpu")
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in scorer.head.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return scorer


def make_prompt(policy: Policy, text: str, **row: Any) -> Prompt:
    return Prompt(text, tuple(policy.tokenizer(text)["input_ids"]), text, {"prompt": text, **row})


def make_batch(
    *,
    prefixes: Sequence[Tensor],
    group_E: Tensor,
    tokens_ET: Tensor,
    mask_ET: Tensor,
    rewards_E: Tensor | None = None,
    truncated_E: Tensor | None = None,
    completion_limit: int | None = None,
    lengths_E: Tensor | None = None,
    **given: Any,
) -> Batch:
    """A batch of one sample per trajectory, which follows the prefix of its group's number. ``given``: `with_given`.

    By default the rewards are 0, none is truncated, and a trajectory ends with its last trained token.
    """
    E, T = tokens_ET.shape
    last_E = (mask_ET * torch.arange(1, T + 1)).amax(dim=1)
    batch = Batch(
        prefixes=tuple(prefixes),
        samples=SampleIndex.one_each(group_E),
        group_E=group_E,
        tokens_ET=tokens_ET,
        mask_ET=mask_ET,
        rewards_E=torch.zeros(E, dtype=torch.float64) if rewards_E is None else rewards_E,
        truncated_E=torch.zeros(E, dtype=torch.bool) if truncated_E is None else truncated_E,
        lengths_E=last_E if lengths_E is None else lengths_E,
        versions_ET=torch.full((E, T), NOT_DRAWN),
        completion_limit=T if completion_limit is None else completion_limit,
    )
    return with_given(batch, **given)


def with_given(batch: Batch, **given: Any) -> Batch:
    """The batch with these fields and streams; a stream of None is left out."""
    names = {field.name for field in fields(Batch)}
    streams = {name: value for name, value in given.items() if name not in names and value is not None}
    return replace(batch, **{name: given[name] for name in given.keys() & names}).with_streams(**streams)


def unscored(group: Group) -> Group:
    return replace(group, trajectories=tuple(replace(t, score=None) for t in group.trajectories))


def without_streams(batch: Batch, *names: str) -> Batch:
    return replace(batch, streams=batch.streams.without(*names))


def prefix_of_each(batch: Batch) -> list[Tensor]:
    """The prefix of each trajectory of a batch with one sample per trajectory."""
    assert batch.samples.trajectory_B.tolist() == list(range(len(batch)))
    return [batch.prefixes[number] for number in batch.samples.prefix_B.tolist()]


def renumbered(batch: Batch, number_P: Tensor) -> Batch:
    """The same batch, with group and prefix p as number ``number_P[p]``; there must be as many prefixes as groups."""
    prefixes = tuple(batch.prefixes[int(old)] for old in number_P.argsort())
    samples = replace(batch.samples, prefix_B=number_P[batch.samples.prefix_B])
    return replace(batch, prefixes=prefixes, samples=samples, group_E=number_P[batch.group_E])


def learner_of(
    method: Method, model: Model, limits: MicrobatchLimits, *, temperature: float = 1.0, **optimizer: Any
) -> Learner:
    """The learner of a method that trains one model, without a reference; ``optimizer`` are its settings."""
    models = {method.objectives()[0].model: model}
    annotator = Annotator(models, None, temperature, limits)
    return Learner(method, models, annotator, OptimizerSettings(**optimizer), steps=1, completion_limit=8)


def ragged_batch(vocabulary: int, *, seed: int = 0, sizes: Sequence[int] = (3, 1, 5, 2)) -> Batch:
    """Interleaved groups with prompts of 1 to 9 tokens and completions of 1 to 8 tokens.

    One completion is not trained on at all; others have untrained tokens at the start, in the middle, at the end.
    """
    generator = torch.Generator().manual_seed(seed)

    def tokens(*shape: int) -> Tensor:
        return torch.randint(0, vocabulary, shape, generator=generator)

    prompts = tuple(tokens(length) for length in (4, 1, 9, 6, 2)[: len(sizes)])
    group_E = torch.cat([torch.full((size,), group) for group, size in enumerate(sizes)])
    group_E = group_E[torch.randperm(len(group_E), generator=generator)]
    B, T = len(group_E), 8
    length_E = torch.randint(2, T + 1, (B,), generator=generator)
    length_E[0], length_E[1] = T, 1
    mask_ET = torch.arange(T) < length_E[:, None]
    mask_ET[0, 2:4] = False
    mask_ET[2, 0] = False
    mask_ET[3, length_E[3] - 1] = False
    mask_ET[4] = False
    return make_batch(
        prefixes=prompts,
        group_E=group_E,
        tokens_ET=tokens(B, T),
        mask_ET=mask_ET,
        rewards_E=torch.randn(B, generator=generator, dtype=torch.float64),
        truncated_E=length_E == T,
        lengths_E=length_E,
    )


def own_logits(model: nn.Module, batch: Batch) -> list[Tensor]:
    """The logits that predict each token of each sequence, [T, V], by the model's own forward, one at a time."""
    rows = []
    for tokens, prefix in zip(batch.tokens_ET, prefix_of_each(batch), strict=True):
        ids = torch.cat([prefix.to(tokens.device), tokens])
        rows.append(model(input_ids=ids[None], use_cache=False).logits[0, len(prefix) - 1 : -1])
    return rows


def own_logprobs(model: nn.Module, batch: Batch, temperature: float) -> list[Tensor]:
    """log π of every token of every sequence by the model's own forward pass, one sequence at a time."""
    rows = []
    for tokens, logits in zip(batch.tokens_ET, own_logits(model, batch), strict=True):
        logprobs = (logits / temperature).log_softmax(dim=-1)
        rows.append(logprobs[torch.arange(len(logprobs)), tokens])
    return rows


def gradients(model: nn.Module) -> dict[str, Tensor]:
    return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


def assert_same_gradients(found: dict[str, Tensor], expected: dict[str, Tensor], tolerance: float) -> None:
    """Equal up to ``tolerance`` times the largest entry of each parameter's gradient."""
    assert found.keys() == expected.keys()
    largest = max(g.abs().max().item() for g in expected.values())
    assert largest > 0
    for name, gradient in expected.items():
        scale = max(gradient.abs().max().item(), 1e-3 * largest)
        error = (found[name] - gradient).abs().max().item()
        assert error <= tolerance * scale, f"{name}: off by {error:.2e} where the largest entry is {scale:.2e}"


def weighted(batch: Batch) -> Tensor:
    """A weight for each trained token, so that a gradient in a wrong place cannot hide."""
    generator = torch.Generator().manual_seed(5)
    return torch.randn(batch.mask_ET.shape, generator=generator, dtype=torch.float64) * batch.mask_ET
