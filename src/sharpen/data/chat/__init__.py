"""Conversations as token ids, through the tokenizer's own chat template."""

from sharpen.data.chat.demonstration import RenderedDemonstration, demonstration
from sharpen.data.chat.format import ChatFormat

__all__ = ["ChatFormat", "RenderedDemonstration", "demonstration"]
