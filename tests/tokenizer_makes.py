"""Tokenizers of the four makes, small and with a vocabulary that a reader can list."""

from __future__ import annotations

from collections.abc import Sequence

from tokenizers import Tokenizer, decoders, normalizers, pre_tokenizers, processors
from tokenizers.models import BPE, Unigram, WordPiece
from transformers import PreTrainedTokenizerFast

SPECIAL = ("<unk>", "<s>", "</s>", "<think>", "</think>")
_MERGES = ("▁ H", "▁H i", "H i", "y e", "ye s", "▁ yes", "o k", "▁ ok")
_CHARACTERS = "▁0123456789abcdefghijklmnopqrstuvwxyzHQA+=-*/.,:;?!()<>"


def _bytes() -> list[str]:
    return [f"<0x{i:02X}>" for i in range(256)]


def _wrapped(model: Tokenizer, special: Sequence[str], *, begins: bool, ends: bool) -> PreTrainedTokenizerFast:
    if begins or ends:
        template = f"{'<s> ' if begins else ''}$A{' </s>' if ends else ''}"
        numbers = [(name, model.token_to_id(name)) for name in ("<s>", "</s>")]
        model.post_processor = processors.TemplateProcessing(single=template, special_tokens=numbers)
    names = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=model, clean_up_tokenization_spaces=False, **names)
    tokenizer.add_special_tokens({"additional_special_tokens": [s for s in special if s not in names.values()]})
    return tokenizer


def sentencepiece_bpe(*, legacy: bool, begins: bool = True, ends: bool = False) -> PreTrainedTokenizerFast:
    """As Llama 2's and Mistral 7B's: a blank before the text, or, ``legacy``, after every special token too."""
    merges = [tuple(merge.split()) for merge in _MERGES]
    tokens = dict.fromkeys((*SPECIAL, *_bytes(), *_CHARACTERS, *("".join(merge) for merge in merges)))
    vocabulary = {token: i for i, token in enumerate(tokens)}
    model = Tokenizer(BPE(vocabulary, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    if legacy:
        model.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    else:
        model.pre_tokenizer = pre_tokenizers.Metaspace("▁", prepend_scheme="first", split=False)
    fused = [decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    model.decoder = decoders.Sequence([decoders.Replace("▁", " "), *fused])
    return _wrapped(model, SPECIAL, begins=begins, ends=ends)


def unigram(*, begins: bool = False, ends: bool = False) -> PreTrainedTokenizerFast:
    """As T5's and XLM-R's: a blank before every text, blanks in a row are one."""
    words = {"▁yes": -1.0, "yes": -3.0, "▁Hi": -2.0, "▁13": -2.0}
    pieces = [*((name, 0.0) for name in SPECIAL), *words.items(), *((c, -8.0) for c in _CHARACTERS)]
    model = Tokenizer(Unigram(pieces, unk_id=0, byte_fallback=False))
    model.normalizer = normalizers.Replace("\n", " ")
    model.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace("▁", prepend_scheme="always")]
    )
    model.decoder = decoders.Metaspace("▁", prepend_scheme="always")
    return _wrapped(model, SPECIAL, begins=begins, ends=ends)


def wordpiece(*, begins: bool = True, ends: bool = True) -> PreTrainedTokenizerFast:
    """As BERT's: letters made small, words cut at blanks and signs, the pieces after a word's first with ``##``."""
    words = ("play", "##ing", "yes", "hi", "132", "##132", "47", "85")
    letters = [c for c in _CHARACTERS if c != "▁"]
    tokens = dict.fromkeys((*SPECIAL, *words, *letters, *(f"##{c}" for c in letters if c.isalnum())))
    vocabulary = {token: i for i, token in enumerate(tokens)}
    model = Tokenizer(WordPiece(vocabulary, unk_token="<unk>"))
    model.normalizer = normalizers.BertNormalizer(lowercase=True)
    model.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    model.decoder = decoders.WordPiece(cleanup=False)
    return _wrapped(model, SPECIAL, begins=begins, ends=ends)


def byte_level(*merges: str, add_prefix_space: bool = False, begins: bool = False) -> PreTrainedTokenizerFast:
    """As GPT-2's and Llama 3's: bytes, and what they are merged to (two tokens with a blank between them)."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    pairs = [tuple(merge.split()) for merge in merges]
    tokens = dict.fromkeys((*letters, *("".join(pair) for pair in pairs), *SPECIAL))
    model = Tokenizer(BPE({token: i for i, token in enumerate(tokens)}, pairs))
    model.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=add_prefix_space, use_regex=False)
    model.decoder = decoders.ByteLevel()
    return _wrapped(model, SPECIAL, begins=begins, ends=False)
