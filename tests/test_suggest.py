"""What messages suggest in place of an unknown name."""

import pytest

from sharpen.methods import METHODS
from sharpen.recipe.schema import Recipe
from sharpen.settings import section_of
from sharpen.suggest import ELSEWHERE, did_you_mean


@pytest.mark.parametrize(
    ("word", "known", "suggestion"),
    [
        ("mehtod", ["model", "method"], " Did you mean `method`?"),
        ("xyz", ["model", "method"], ""),
        ("num_generations", ["beta", "group_size", "generations"], " Did you mean `group_size`?"),
        ("lr", ["every", "learning_rate"], " Did you mean `learning_rate`?"),
        ("clip_ratio", ["method.beta", "method.eps_low"], " Did you mean `method.eps_low`?"),
        ("lr", ["every"], ""),
    ],
)
def test_the_nearest_name_or_the_one_for_what_other_libraries_call_so(
    word: str, known: list[str], suggestion: str
) -> None:
    assert did_you_mean(word, known) == suggestion


def test_every_name_that_stands_for_another_librarys_is_a_setting() -> None:
    ours = {name for method in METHODS.values() for name in method.model_fields}
    for field in Recipe.model_fields.values():
        section = section_of(field.annotation)
        ours |= set() if section is None else set(section.model_fields)
    assert {name for names in ELSEWHERE.values() for name in names} - ours == set()
