"""The chat template that an adapter was trained with."""

from __future__ import annotations

from pathlib import Path

from transformers import PreTrainedTokenizerBase

from sharpen.models.adapter_files import AdapterFiles

_FILE = "chat_template.jinja"


def take_template(tokenizer: PreTrainedTokenizerBase, adapter: AdapterFiles | None) -> None:
    """Give the tokenizer of an adapter's base model the chat template in the adapter's folder, if there is one."""
    if adapter is not None and (file := Path(adapter.path) / _FILE).is_file():
        tokenizer.chat_template = file.read_text(encoding="utf-8")
