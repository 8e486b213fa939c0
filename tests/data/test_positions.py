import random

import pytest

from byte_tokenizer import byte_tokenizer
from sharpen.data.positions import step_ends, token_ends
from sharpen.models.character_model import character_tokenizer


@pytest.mark.parametrize(
    ("text", "separator", "steps"),
    [
        ("a;b;c", ";", ["a;", "b;", "c"]),
        ("a;b;", ";", ["a;", "b;"]),
        ("abc", ";", ["abc"]),
        ("a\n\n b\n", "\n", ["a\n", "\n b\n"]),
        (";;a;b", ";", [";;a;", "b"]),
        ("a;b; \n", ";", ["a;", "b; \n"]),
        ("a<s>b", "<s>", ["a<s>", "b"]),
        ("", ";", [""]),
        (" ;", ";", [" ;"]),
    ],
)
def test_steps_end_after_their_separator_and_the_last_with_the_text(text, separator, steps):
    ends = step_ends(text, separator)
    assert [text[a:b] for a, b in zip((0, *ends), ends, strict=False)] == steps
    assert ends[-1] == len(text)


def test_characters_of_one_token_each():
    tokenizer = character_tokenizer("12+=;#", context=32)
    ids = tokenizer("1+1=2;2+1=1#1")["input_ids"]
    assert token_ends([*ids, tokenizer.eos_token_id], (6, 13), tokenizer) == (5, 12)


def test_a_special_token_within_is_no_text():
    tokenizer = character_tokenizer("12;", context=32)
    one, two, end = tokenizer("12;")["input_ids"]
    assert token_ends([one, tokenizer.eos_token_id, end, two], (1, 2, 3), tokenizer) == (0, 2, 3)


def test_a_token_that_goes_beyond_the_end_completes_it():
    tokenizer = byte_tokenizer(";b", "c;")
    ids = tokenizer("a;bc;d")["input_ids"]
    assert tokenizer.convert_ids_to_tokens(ids) == ["a", ";b", "c;", "d"]
    assert token_ends(ids, (1, 2, 3, 4, 5, 6), tokenizer) == (0, 1, 1, 2, 2, 3)


@pytest.mark.parametrize("seed", range(5))
def test_characters_of_several_tokens(seed):
    """Against counting bytes: a character is complete with the token that holds its last byte."""
    chosen = random.Random(seed)
    text = "".join(chosen.choices("aé€😀é\n;b", k=40))
    tokenizer = byte_tokenizer("b;", "aa")
    ids = tokenizer(text)["input_ids"]
    sizes = [2 if token in ("b;", "aa") else 1 for token in tokenizer.convert_ids_to_tokens(ids)]
    assert sum(sizes) == len(text.encode())
    expected = []
    for end in range(1, len(text) + 1):
        needed, token = len(text[:end].encode()), 0
        while sum(sizes[: token + 1]) < needed:
            token += 1
        expected.append(token)
    assert token_ends(ids, range(1, len(text) + 1), tokenizer) == tuple(expected)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("pool", ["aé€😀é\n;b", "a;", "😀", "€ ;b"])
def test_long_texts_against_decoding_every_beginning(pool, seed):
    chosen = random.Random(seed)
    tokenizer = byte_tokenizer("b;", "aa")
    # Characters that are cut off, and a special token in between.
    ids = [token for _ in range(60) for token in tokenizer(chosen.choice(pool))["input_ids"][: chosen.randint(1, 4)]]
    ids.insert(40, tokenizer.eos_token_id)
    beginnings = [tokenizer.decode(ids[: i + 1], skip_special_tokens=True) for i in range(len(ids))]
    text = beginnings[-1]
    ends = sorted(chosen.sample(range(1, len(text) + 1), 20))
    expected = [next(i for i, start in enumerate(beginnings) if start[:end] == text[:end]) for end in ends]
    assert token_ends(ids, ends, tokenizer) == tuple(expected)


@pytest.mark.parametrize("ends", [(0,), (2, 2), (2, 1), (4,)])
def test_ends_outside_the_text_or_not_rising(ends):
    tokenizer = character_tokenizer("12;", context=32)
    with pytest.raises(ValueError, match="of a text of 3 characters"):
        token_ends(tokenizer("12;")["input_ids"], ends, tokenizer)
