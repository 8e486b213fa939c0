"""What a recipe's first settings depend on in a model, without loading its weights."""

from __future__ import annotations

import re
from dataclasses import dataclass
from math import prod
from pathlib import Path

from safetensors import safe_open
from tokenizers import Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE
from transformers import AutoConfig, AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from sharpen.errors import ModelError
from sharpen.models.adapter_files import find_adapter
from sharpen.models.load import located
from sharpen.models.shape import context_length
from sharpen.runs.lookup import find_model

SMALL_MODEL = "models/SmolLM2-135M-Instruct"
SMALL_MODEL_ID = "HuggingFaceTB/SmolLM2-135M-Instruct"

BYTES_PER_TOKEN = 4
"""Of English text, where the model's tokenizer is not at hand."""

_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([bm])(?![a-z])", re.IGNORECASE)
_CHAT = re.compile(r"instruct|chat|[-_]it\b|zephyr", re.IGNORECASE)
_CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """A model by the name that a recipe gives it; what is None is not known.

    ``tokenizer`` is the model's own if ``at_hand``. Otherwise it is a stand-in with a token for every byte, with which
    rows can be checked, but not measured.
    """

    name: str
    at_hand: bool
    tokenizer: PreTrainedTokenizerBase
    chat: bool
    context: int | None = None
    parameters: int | None = None

    def tokens(self, texts: list[str]) -> list[int]:
        """About how many tokens each text is."""
        counts = [len(ids) for ids in self.tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"]]
        return counts if self.at_hand else [-(-count // BYTES_PER_TOKEN) for count in counts]


def usual_model() -> str:
    """The model of a recipe for which none is given."""
    return SMALL_MODEL if (Path(SMALL_MODEL) / "config.json").is_file() else SMALL_MODEL_ID


def look_at_model(name: str) -> ModelFacts:
    """Looks into a folder, a run, or a model of the hub that was downloaded before. Nothing is downloaded.

    Raises:
        SharpenError: the folder or run holds no model.
    """
    path = located(find_model(name, "configuration").path)
    is_folder = Path(path).is_dir()
    if is_folder and (adapter := find_adapter(path)) is not None:
        path = adapter.base
    try:
        config = AutoConfig.from_pretrained(path, local_files_only=True)
        tokenizer = AutoTokenizer.from_pretrained(path, local_files_only=True)
    except (OSError, ValueError) as error:
        if is_folder:
            raise ModelError(f"{name}: cannot read this model's configuration and tokenizer: {error}") from error
        return ModelFacts(name, False, _stand_in(), bool(_CHAT.search(name)), parameters=_size_in(name))
    context = context_length(config, tokenizer)
    parameters = _count(Path(path)) if Path(path).is_dir() else None
    return ModelFacts(name, True, tokenizer, tokenizer.chat_template is not None, context, parameters or _size_in(name))


def _count(folder: Path) -> int | None:
    """The number of weights in a folder's safetensors."""
    total = 0
    for file in folder.glob("model*.safetensors"):
        with safe_open(file, framework="pt") as weights:
            total += sum(prod(weights.get_slice(key).get_shape()) for key in weights.keys())  # noqa: SIM118
    return total or None


def _size_in(name: str) -> int | None:
    """The number of weights that a model's name gives, as in ``Qwen2.5-0.5B``."""
    found = _SIZE.search(Path(name).name)
    return None if found is None else int(float(found[1]) * {"b": 1e9, "m": 1e6}[found[2].lower()])


def _stand_in() -> PreTrainedTokenizerBase:
    letters = {letter: i for i, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    of_bytes = Tokenizer(BPE(letters, []))
    of_bytes.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    of_bytes.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=of_bytes, eos_token="<|im_end|>", pad_token="<|im_end|>")
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>"]})
    tokenizer.chat_template = _CHATML
    return tokenizer
