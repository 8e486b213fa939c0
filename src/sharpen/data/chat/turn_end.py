"""What ends an assistant's turn, learned from the chat template by rendering small conversations with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from typing import NamedTuple

from transformers import PreTrainedTokenizerBase

from sharpen.data.chat.format import NOTHING, ChatFormat
from sharpen.data.tokens import special_ids
from sharpen.errors import DataError
from sharpen.types import Message

_ASKED, _SAID, _FOUND = "qzasked", "qzsaid", "qzfound"
"""Words that no template writes by itself and none changes."""


@dataclass(frozen=True, slots=True)
class TurnEnd:
    """What ends an assistant's turn.

    The template writes ``text`` after what was said, and then ``tail`` where the conversation ends there. ``next_turn``
    is for templates that end a turn only by beginning the next: by its role, the text up to the token that begins it.
    ``appended`` is the end-of-sequence token where the template writes no token that ends a turn. ``token_ids`` are the
    tokens at which a policy has to stop, ``stops`` these and those that the model declares. ``special`` are the special
    tokens by their texts. ``warning`` says what is doubtful, ``lacking`` why there is no such token.
    """

    text: str
    tail: str
    token_ids: frozenset[int]
    stops: frozenset[int]
    special: Mapping[str, int]
    next_turn: Mapping[str, str] = field(default_factory=dict)
    appended: tuple[int, ...] = ()
    warning: str | None = None
    lacking: str | None = None

    def closed(self, written: str, next_role: str) -> tuple[str, tuple[int, ...]]:
        """What a policy writes of ``written``, a turn as the last of its conversation: the text up to the end, and the
        tokens after that text which the template leaves out.

        Raises DataError if nothing ends the turn.
        """
        said = written.removesuffix(self.tail)
        if self.next_turn:
            return said + self.next_turn.get(next_role, self.next_turn["user"]), ()
        last = _run_up_to_end(said, self.special)
        # After an end some templates write more, such as an empty answer after a call, which no policy gets to.
        stop = next((token.stop for token in last if token.id in self.stops), None)
        if stop is None and last and not self.appended:
            # Calls of tools may end in another way.
            stop = last[-1].stop
        if stop is not None:
            return said[:stop], ()
        if self.lacking is not None:
            raise DataError(self.lacking)
        return said, self.appended or tuple(self.token_ids)


def turn_end(chat: ChatFormat) -> TurnEnd:
    """What ends an assistant's turn, by the template of ``chat``, which is asked once:

    - the first special token after the content, with only whitespace between; of several that it also writes between
      two turns the first that the model declares as an end of sequence; and the special token after a call of a tool,
      where that is another;
    - without one, the special token that begins the next turn, if the model declares it as an end of sequence;
    - else the tokenizer's end-of-sequence token, after the text that the template writes there, if any.
    """
    if "" not in chat.ends:
        chat.ends[""] = _learned(chat)
    found: TurnEnd = chat.ends[""]
    return found


def _learned(chat: ChatFormat) -> TurnEnd:
    tokens = _special_tokens(chat.tokenizer)
    asked, said = {"role": "user", "content": _ASKED}, {"role": "assistant", "content": _SAID}
    before: list[Message] = [asked]
    alone = _rendered(chat, [*before, said])
    if alone is None:
        # Some templates insist on a system message.
        before = [{"role": "system", "content": _ASKED}, asked]
        alone = _rendered(chat, [*before, said])
    # Without any text a row will show why, and its turns end as those that only content ends.
    after = (alone or "").rpartition(_SAID)[2]
    if found := _run_of(after, tokens):
        follows = _rendered(chat, [*before, said, {"role": "user", "content": _FOUND}]) or ""
        between = _run_of(follows.rpartition(_SAID)[2], tokens)
        declared = chat.eos_ids | {chat.tokenizer.eos_token_id}
        shared = takewhile(lambda pair: pair[0] == pair[1], zip(found, between, strict=False))
        end = next((end for end, _ in shared if end.id in declared), found[0])
        ids = frozenset({end.id}) | _ends_of_calls(chat, before, chat.eos_ids | {end.id}, tokens)
        return TurnEnd(after[: end.stop], after[end.stop :], ids, chat.eos_ids | ids, tokens)
    if not after.strip() and (next_turn := _next_turns(chat, [*before, said], tokens)):
        ids = frozenset(tokens[text.strip()] for text in next_turn.values())
        return TurnEnd("", after, ids, chat.eos_ids | ids, tokens, next_turn)
    return _by_end_of_sequence(chat, after, tokens)


def _by_end_of_sequence(chat: ChatFormat, after: str, tokens: Mapping[str, int]) -> TurnEnd:
    name, eos = chat.tokenizer.name_or_path or "this model", chat.tokenizer.eos_token_id
    text = after.rstrip()
    tail = after[len(text) :]
    if eos is None:
        lacking = (
            f"the chat template of {name} writes no token that ends the assistant's turn, and its tokenizer has no "
            "end-of-sequence token that could: set its eos_token"
        )
        return TurnEnd(text, tail, frozenset(), chat.eos_ids, tokens, lacking=lacking)
    warning = None
    if text:
        warning = (
            f"the chat template of {name} ends the assistant's turn with {text.strip()!r}, which is no special token "
            f"of its tokenizer: demonstrations train it as text with {chat.tokenizer.eos_token} after it, and sampling "
            f"stops only at {chat.tokenizer.eos_token}. Is the template made for another tokenizer?"
        )
    ids = frozenset({eos})
    return TurnEnd(text, tail, ids, chat.eos_ids | ids, tokens, appended=(eos,), warning=warning)


def _special_tokens(tokenizer: PreTrainedTokenizerBase) -> dict[str, int]:
    """The ids of all special tokens, by their texts."""
    return {str(text): i for i in sorted(special_ids(tokenizer)) if (text := tokenizer.convert_ids_to_tokens(i))}


def _next_turns(chat: ChatFormat, messages: list[Message], tokens: Mapping[str, int]) -> dict[str, str]:
    """What the template writes up to the token that begins the next turn, by role, where that is a declared end."""
    called = [*messages[:-1], _calling("abcdefghi")]
    result = {"role": "tool", "name": _SAID, "tool_call_id": "abcdefghi", "content": _FOUND}
    found = {}
    for role, before, follows in (
        ("user", messages, {"role": "user", "content": _FOUND}),
        ("tool", called, result),
    ):
        alone, continued = _rendered(chat, before), _rendered(chat, [*before, follows])
        if alone is None or continued is None or not continued.startswith(alone.rstrip()):
            continue
        begins = continued[len(alone.rstrip()) :]
        token = _leading(begins.lstrip(), tokens)
        if token and tokens[token] in chat.eos_ids:
            found[role] = begins[: begins.index(token) + len(token)]
    return found if "user" in found else {}


def _ends_of_calls(
    chat: ChatFormat, before: Sequence[Message], declared: frozenset[int], tokens: Mapping[str, int]
) -> frozenset[int]:
    """The special token that ends turns with calls of tools, if any; one of the ``declared`` ends before others."""
    one, two = (_rendered(chat, [*before, _calling(*ids)]) or "" for ids in (["abcdefghi"], ["abcdefghi", "ihgfedcba"]))
    last = [token.id for token in _run_up_to_end(one, tokens)]
    if _SAID not in one or not last:
        return frozenset()
    if known := [token_id for token_id in last if token_id in declared]:
        return frozenset(known[:1])
    # What stands after each of several calls ends no turn.
    end = next(text for text, token_id in tokens.items() if token_id == last[-1])
    return frozenset() if two.count(end) > one.count(end) else frozenset(last[-1:])


def _calling(*ids: str) -> Message:
    """A turn that calls a tool, once for each of the ids."""
    function = {"name": _SAID, "arguments": {_SAID: _SAID}}
    calls = [{"type": "function", "id": call_id, "function": function} for call_id in ids]
    return {"role": "assistant", "content": "", "tool_calls": calls}


def _rendered(chat: ChatFormat, messages: Sequence[Message]) -> str | None:
    try:
        return chat.text(messages, "a conversation to learn the end of turn from", NOTHING, add_generation_prompt=False)
    except DataError:
        return None


class _Special(NamedTuple):
    """A special token in a text, which it ends at ``stop``."""

    id: int
    stop: int


def _run_of(text: str, tokens: Mapping[str, int]) -> list[_Special]:
    """The special tokens that a text begins with, with only whitespace before and between them."""
    found: list[_Special] = []
    place = 0
    while token := _leading(text[place:].lstrip(), tokens):
        place = text.index(token, place) + len(token)
        found.append(_Special(tokens[token], place))
    return found


def _run_up_to_end(text: str, tokens: Mapping[str, int]) -> list[_Special]:
    """The special tokens that a text ends with, with only whitespace between and after them."""
    found: list[_Special] = []
    stop = len(text.rstrip())
    while token := max((token for token in tokens if text.endswith(token, 0, stop)), key=len, default=""):
        found.insert(0, _Special(tokens[token], stop))
        stop = len(text[: stop - len(token)].rstrip())
    return found


def _leading(text: str, tokens: Mapping[str, int]) -> str:
    """The longest token that the text begins with; empty if there is none."""
    return max((token for token in tokens if text.startswith(token)), key=len, default="")
