"""What `rollout.turns` may answer."""

from __future__ import annotations

import json
import operator
from collections.abc import Iterable, Mapping

from sharpen.rollout.turns import Reply
from sharpen.types import End, Message

ENDS = (End.DONE, End.OUT_OF_TURNS)
"""How a conversation may end without a failure, if its limits allow it to go on."""


class AnswerError(ValueError):
    """An answer that cannot be used; the message says what was returned."""


def checked(answer: object, vocabulary: int | None) -> Reply | End:
    """The answer, with token ids that are ints and messages as they are after JSON.

    ``vocabulary`` is the number of the policy's tokens. Raises `AnswerError` for anything that a conversation cannot go
    on or end with.
    """
    if isinstance(answer, End):
        if answer not in ENDS:
            or_else = "" if answer is End.ENVIRONMENT_FAILED else ", not End.DONE or End.OUT_OF_TURNS"
            raise AnswerError(f"End.{answer.name}{or_else}")
    elif isinstance(answer, Reply):
        token_ids = _token_ids(answer.token_ids, vocabulary)
        messages = tuple(_message(message, f"message {i}") for i, message in enumerate(answer.messages))
        return Reply(token_ids, messages)
    else:
        raise AnswerError(f"{answer!r:.60}, not a Reply or an End")
    return answer


def _token_ids(given: Iterable[object], vocabulary: int | None) -> tuple[int, ...]:
    try:
        token_ids = tuple(int(operator.index(one)) for one in given)  # type: ignore[arg-type]  # else a TypeError
    except TypeError as error:
        raise AnswerError(f"a reply whose token_ids are not all whole numbers: {error}") from error
    if not token_ids:
        raise AnswerError("a reply that has no tokens: token_ids is the whole context, not only what is added to it")
    if min(token_ids) < 0 or (vocabulary is not None and max(token_ids) >= vocabulary):
        wrong = next(one for one in token_ids if one < 0 or (vocabulary is not None and one >= vocabulary))
        tokens = "" if vocabulary is None else f"; the model has {vocabulary} tokens"
        raise AnswerError(f"a reply with the token id {wrong}{tokens}")
    return token_ids


def _message(message: object, what: str) -> Message:
    if not isinstance(message, Mapping):
        raise AnswerError(f"a reply whose {what} is a {type(message).__name__}, not a mapping")
    for field in ("role", "content"):
        if not isinstance(message.get(field), str):
            raise AnswerError(f"a reply whose {what} has no text as {field!r}: {dict(message)!r:.60}")
    try:
        written = json.dumps(dict(message), ensure_ascii=False, allow_nan=False).encode()
    except (TypeError, ValueError) as error:
        raise AnswerError(f"a reply whose {what} cannot be written as JSON: {error}") from error
    read: Message = json.loads(written)
    return read
