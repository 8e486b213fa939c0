"""Tokens as text that can be shown: what SentencePiece begins with a blank reads so."""

from sharpen.launch.spans import Span, spans
from tokenizer_makes import sentencepiece_bpe


def test_a_blank_that_a_completion_begins_with_is_shown() -> None:
    tokenizer = sentencepiece_bpe(legacy=False)
    before = tokenizer("47+85=", add_special_tokens=False)["input_ids"]
    alone = tokenizer("132", add_special_tokens=False)["input_ids"]
    inside = tokenizer("47+85=132", add_special_tokens=False)["input_ids"][len(before) :]
    for ids, text in ((alone, " 132"), (inside, "132")):
        assert spans(tokenizer, ids, [True] * len(ids), before=before) == [Span(text, True, False)]


def test_pieces_of_one_text_add_up_to_it() -> None:
    tokenizer = sentencepiece_bpe(legacy=False)
    ids = tokenizer("1 2 3", add_special_tokens=False)["input_ids"]
    marks = [i % 2 == 0 for i in range(len(ids))]
    assert "".join(span.text for span in spans(tokenizer, ids, marks)) == "1 2 3"
