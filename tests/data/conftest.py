import pytest
from tiny_tokenizers import PLAIN_TEMPLATE, make_tokenizer
from transformers import PreTrainedTokenizerFast


@pytest.fixture
def plain() -> PreTrainedTokenizerFast:
    """A tokenizer without a chat template."""
    return make_tokenizer()


@pytest.fixture
def chat() -> PreTrainedTokenizerFast:
    """A tokenizer with a chat template that ends every turn by ``<eos>`` and a line break."""
    return make_tokenizer(PLAIN_TEMPLATE)
