"""A tokenizer as GGUF metadata: tokens, their types, merges or scores, and the name of the pre-tokenizer."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sharpen.errors import ModelError

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6

_LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_QWEN2 = _LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")
_SPLITS = {_LLAMA3: "llama-bpe", _QWEN2: "qwen2"}
"""llama.cpp's names of pre-tokenizers, by the expression that splits the text."""

READ_AS_GPT2 = ("smollm",)
"""Names that transformers' reader of GGUF takes for GPT-2's."""


@dataclass(frozen=True, slots=True)
class GgufTokenizer:
    """The metadata. ``model`` is ``gpt2`` (byte-level BPE) or ``llama`` (SentencePiece's BPE, which has scores)."""

    model: str
    pre: str
    tokens: tuple[str, ...]
    types: tuple[int, ...]
    merges: tuple[str, ...]
    scores: tuple[float, ...] | None
    prefix_space: bool | None


def gguf_tokenizer(tokenizer: Any, vocabulary: int, source: str) -> GgufTokenizer:
    """The metadata of a tokenizer, padded to the model's ``vocabulary``.

    Raises ModelError if it is of a make that is not written, or splits text in a way that llama.cpp has no name for.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise ModelError(f"{source}: only tokenizers with a tokenizer.json can be written to GGUF")
    told = json.loads(backend.to_str())
    model = told["model"]
    if model["type"] != "BPE":
        raise ModelError(
            f"{source}: its tokenizer is of type {model['type']}; only byte-level BPE and SentencePiece's BPE can be "
            "written to GGUF"
        )
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]]
    sentencepiece = bool(model.get("byte_fallback"))
    tokens, types = _tokens(tokenizer, told, vocabulary, source, sentencepiece=sentencepiece)
    if not sentencepiece:
        return GgufTokenizer("gpt2", _pre(told, source), tokens, types, tuple(merges), None, None)
    ranks: dict[str, int] = {}
    for rank, merge in enumerate(merges):
        ranks.setdefault(merge.replace(" ", ""), rank)
    scores = tuple(-float(ranks[t]) if t in ranks else -float(len(merges) + 1) for t in tokens)
    return GgufTokenizer("llama", "default", tokens, types, tuple(merges), scores, _prefix_space(told))


def _tokens(
    tokenizer: Any, told: Mapping[str, Any], vocabulary: int, source: str, *, sentencepiece: bool
) -> tuple[tuple[str, ...], tuple[int, ...]]:
    by_id = {index: token for token, index in tokenizer.get_vocab().items()}
    if len(by_id) and max(by_id) >= vocabulary:
        raise ModelError(f"{source}: its tokenizer has {max(by_id) + 1} tokens, and the model {vocabulary}")
    added = {entry["id"]: entry for entry in told["added_tokens"]}
    tokens, types = [], []
    for index in range(vocabulary):
        token = by_id.get(index)
        if token is None:
            tokens.append(f"[PAD{index}]")
            types.append(UNUSED)
            continue
        tokens.append(token)
        if index in added:
            unknown = sentencepiece and token == tokenizer.unk_token
            types.append(UNKNOWN if unknown else CONTROL if added[index]["special"] else USER_DEFINED)
        else:
            types.append(BYTE if sentencepiece and _is_byte(token) else NORMAL)
    return tuple(tokens), tuple(types)


def _is_byte(token: str) -> bool:
    return len(token) == 6 and token.startswith("<0x") and token.endswith(">")


def _pre(told: Mapping[str, Any], source: str) -> str:
    """llama.cpp's name for how the text is split before merging."""
    steps = _flat(told.get("pre_tokenizer"))
    kinds = [step["type"] for step in steps]
    normalised = _flat(told.get("normalizer"))
    bytes_alone = bool(steps) and kinds[-1] == "ByteLevel" and not steps[-1]["add_prefix_space"]
    if bytes_alone and all(step["type"] == "NFC" for step in normalised):
        if kinds == ["ByteLevel"] and steps[0]["use_regex"] and not normalised:
            return "gpt-2"
        if kinds == ["Digits", "ByteLevel"] and steps[0]["individual_digits"] and steps[1]["use_regex"]:
            return "smollm"
        pattern = steps[0].get("pattern", {}).get("Regex") if kinds == ["Split", "ByteLevel"] else None
        if pattern in _SPLITS and steps[0]["behavior"] == "Isolated" and not steps[1]["use_regex"]:
            return _SPLITS[pattern]
    raise ModelError(
        f"{source}: its tokenizer splits text in a way that has no proven name in GGUF ({', '.join(kinds) or 'none'}); "
        f"known are gpt-2, smollm, {', '.join(_SPLITS.values())}"
    )


def _flat(step: Mapping[str, Any] | None) -> list[Mapping[str, Any]]:
    if step is None:
        return []
    if step["type"] != "Sequence":
        return [step]
    return [inner for part in step.get("pretokenizers", step.get("normalizers", ())) for inner in _flat(part)]


def _prefix_space(told: Mapping[str, Any]) -> bool:
    before = _flat(told.get("normalizer")) + _flat(told.get("pre_tokenizer"))
    return any(
        step["type"] == "Prepend" or (step["type"] == "Metaspace" and step.get("prepend_scheme") != "never")
        for step in before
    )
