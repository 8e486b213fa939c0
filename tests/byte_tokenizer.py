"""A tokenizer whose characters may be several tokens, and whose tokens several characters."""

from tokenizers import Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE
from transformers import PreTrainedTokenizerFast


def byte_tokenizer(*merges: str) -> PreTrainedTokenizerFast:
    """A token for every byte, and one for each of ``merges``, two characters of one byte each; then ``<eos>``."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: i for i, token in enumerate([*letters, *merges])}
    model = Tokenizer(BPE(vocabulary, [(merge[0], merge[1]) for merge in merges]))
    model.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    model.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=model, eos_token="<eos>")
