"""Tokenizers of the four makes, trained on a few sentences, and the text that their tokens stand for."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache

from tokenizers import AddedToken, Regex, Tokenizer, decoders, normalizers, pre_tokenizers
from tokenizers.models import BPE, Unigram, WordPiece
from tokenizers.processors import TemplateProcessing
from tokenizers.trainers import BpeTrainer, UnigramTrainer, WordPieceTrainer
from transformers import PreTrainedTokenizerFast

from sharpen.types import Sample

MAKES = ("byte_level", "sentencepiece_legacy", "sentencepiece", "unigram", "wordpiece")
"""Byte-level BPE (Qwen, Llama 3), SentencePiece BPE as in Llama 2 (a blank before each piece of text) and as in
Mistral 7B v0.3 (before the whole text only), unigram (T5), WordPiece (BERT)."""

CORPUS = [
    "hi yes no why be nice ok hmm um a chat",
    "user assistant system model tool User Assistant System USER ASSISTANT",
    "a river is a river and a sea is a sea",
    "1 2 3 4 5 6 7 8 9 0 + = - .",
    "the answer is that the river flows to the sea",
] * 3
_BYTES = [f"<0x{byte:02X}>" for byte in range(256)]
_CHARACTERS = [chr(code) for code in range(33, 127)]


def make_tokenizer(
    make: str,
    *,
    special: Sequence[str] = (),
    added: Sequence[str] = (),
    bos: str | None = None,
    eos: str | None = "</s>",
    rstrip: bool = False,
    begins_with_bos: bool = False,
    template: str | None = None,
) -> PreTrainedTokenizerFast:
    """A tokenizer of one of `MAKES` with these ``special`` tokens and ``added`` ones that are not special.

    ``rstrip`` is that of the special tokens, which then take the blanks after them. ``begins_with_bos`` puts BOS before
    plain texts.
    """
    model = Tokenizer.from_str(_trained(make))
    tokens = dict.fromkeys([*special, *(token for token in (bos, eos) if token)])
    model.add_special_tokens([AddedToken(token, special=True, normalized=False, rstrip=rstrip) for token in tokens])
    model.add_tokens([AddedToken(token, normalized=False) for token in added])
    if begins_with_bos:
        assert bos is not None
        model.post_processor = TemplateProcessing(f"{bos} $A", special_tokens=[(bos, model.token_to_id(bos))])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=model,
        bos_token=bos,
        eos_token=eos,
        unk_token="[UNK]" if make == "wordpiece" else None,
        clean_up_tokenization_spaces=False,
    )
    tokenizer.chat_template = template
    return tokenizer


def spelled(tokenizer: PreTrainedTokenizerFast, ids: Sequence[int]) -> list[bytes]:
    """The bytes that each token stands for, after those before it.

    A blank that the tokenizer puts before a text is none of the text. WordPiece keeps no blanks.
    """
    added = {i: token.content for i, token in tokenizer.added_tokens_decoder.items()}
    decoder = json.loads(tokenizer.backend_tokenizer.to_str())["decoder"]["type"]
    prefixed = _prefixed(tokenizer)
    found = []
    begins = prefixed != "never"
    for token_id in ids:
        if token_id in added:
            found.append(added[token_id].encode())
            begins = prefixed == "always"
            continue
        token = str(tokenizer.convert_ids_to_tokens(token_id))
        if decoder == "ByteLevel":
            found.append(bytes(_BYTE_OF[character] for character in token))
        elif token in _BYTES:
            found.append(bytes([_BYTES.index(token)]))
        else:
            text = token.removeprefix("##") if decoder == "WordPiece" else token
            found.append((text.removeprefix("▁") if begins else text).replace("▁", " ").encode())
        begins = False
    return found


def marked(tokenizer: PreTrainedTokenizerFast, sample: Sample) -> str:
    """The text of a sample, with what is trained on between « and »."""
    ids = (*sample.prefix_ids, *sample.token_ids)
    trained = (*(False for _ in sample.prefix_ids), *sample.loss_mask, False)
    text, inside = b"", False
    for piece, is_trained in zip([*spelled(tokenizer, ids), b""], trained, strict=True):
        if is_trained != inside:
            text += "«".encode() if is_trained else "»".encode()
            inside = is_trained
        text += piece
    return text.decode()


def _prefixed(tokenizer: PreTrainedTokenizerFast) -> str:
    told = json.loads(tokenizer.backend_tokenizer.to_str())
    if (told["normalizer"] or {}).get("normalizers", [{}])[0].get("type") == "Prepend":
        return "always"
    scheme = (told["pre_tokenizer"] or {}).get("prepend_scheme", "never")
    return {"first": "first", "always": "always"}.get(scheme, "never")


@cache
def _trained(make: str) -> str:
    return {
        "byte_level": _byte_level,
        "sentencepiece_legacy": lambda: _sentencepiece(legacy=True),
        "sentencepiece": lambda: _sentencepiece(legacy=False),
        "unigram": _unigram,
        "wordpiece": _wordpiece,
    }[make]().to_str()


def _byte_level() -> Tokenizer:
    tokenizer = Tokenizer(BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = BpeTrainer(vocab_size=340, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(CORPUS, trainer)
    return tokenizer


def _sentencepiece(*, legacy: bool) -> Tokenizer:
    learning = Tokenizer(BPE())
    learning.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = BpeTrainer(vocab_size=180, initial_alphabet=["▁", *_CHARACTERS], show_progress=False)
    learning.train_from_iterator(CORPUS, trainer)
    learned = json.loads(learning.to_str())["model"]
    tokens = dict.fromkeys(["<unk>", *_BYTES, *learned["vocab"]])
    vocabulary = {token: i for i, token in enumerate(tokens)}
    merges = [(first, second) for first, second in learned["merges"]]
    tokenizer = Tokenizer(BPE(vocabulary, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    if legacy:
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return tokenizer


def _unigram() -> Tokenizer:
    tokenizer = Tokenizer(Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    alphabet = ["▁", "\n", *_CHARACTERS, *"用户"]
    trainer = UnigramTrainer(
        vocab_size=200, initial_alphabet=alphabet, unk_token="<unk>", special_tokens=["<unk>"], show_progress=False
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    return tokenizer


def _wordpiece() -> Tokenizer:
    tokenizer = Tokenizer(WordPiece(unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Split(Regex(r"[^\w]"), "isolated")]
    )
    tokenizer.decoder = decoders.WordPiece()
    trainer = WordPieceTrainer(
        vocab_size=400,
        initial_alphabet=[*_CHARACTERS, *"用户"],
        special_tokens=["[UNK]"],
        show_progress=False,
    )
    # A word's inner characters are tokens of their own.
    inner = [f"a{character}" for character in [*_CHARACTERS, *"用户"]]
    tokenizer.train_from_iterator([*CORPUS, *inner], trainer)
    return tokenizer


def _byte_characters() -> dict[str, int]:
    """The character that byte-level tokenizers write for each byte: itself if it is visible, else one from 256 on."""
    visible = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in visible]
    return {chr(byte): byte for byte in visible} | {chr(256 + i): byte for i, byte in enumerate(others)}


_BYTE_OF = _byte_characters()
