"""Conversations as token ids, through the tokenizer's own chat template."""

from sharpen.data.chat.demonstration import RenderedDemonstration, demonstration
from sharpen.data.chat.format import ChatFormat
from sharpen.data.chat.turn_end import TurnEnd, turn_end

__all__ = ["ChatFormat", "RenderedDemonstration", "TurnEnd", "demonstration", "turn_end"]
