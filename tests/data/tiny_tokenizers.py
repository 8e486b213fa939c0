"""Tiny tokenizers whose token ids a reader can work out: every word of VOCABULARY is one token."""

from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Split
from transformers import PreTrainedTokenizerFast

VOCABULARY = [
    *("<eos>", "<user>", "<assistant>", "<system>", "<think>", "\n"),
    *("hi", "yes", "no", "ok", "why", "be", "nice", "hmm", " ", "?"),
]

PLAIN_TEMPLATE = (
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}<eos>\n{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% if think %}<think>{% endif %}{% endif %}"
)

GENERATION_TEMPLATE = (
    "{% for m in messages %}<{{ m.role }}>"
    "{% if m.role == 'assistant' %}{% generation %}{{ m.content }}<eos>{% endgeneration %}"
    "{% else %}{{ m.content }}<eos>{% endif %}{{ '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)

FORGETFUL_TEMPLATE = (
    "{% for m in messages %}<{{ m.role }}>"
    "{% if m.role == 'assistant' and loop.last %}<think>hmm\n{% endif %}"
    "{{ m.content }}<eos>\n{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}"
)


def make_tokenizer(template: str | None = None, eos: str | None = "<eos>") -> PreTrainedTokenizerFast:
    model = Tokenizer(WordLevel({word: i for i, word in enumerate(VOCABULARY)}, unk_token="?"))
    model.pre_tokenizer = Split(" ", behavior="isolated")
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=model, unk_token="?", eos_token=eos)
    tokenizer.add_special_tokens({"additional_special_tokens": VOCABULARY[1:5]})
    tokenizer.add_tokens("\n")
    tokenizer.chat_template = template
    return tokenizer


def ids(text: str) -> tuple[int, ...]:
    """Token ids of words separated by blanks; ``\\n`` is a word."""
    return tuple(VOCABULARY.index("\n" if word == "\\n" else word) for word in text.split())
