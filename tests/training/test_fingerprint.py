"""What a checkpoint says of the models of its run."""

import hashlib
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from sharpen.data.rows import read_rows
from sharpen.errors import CheckpointError, ModelError
from sharpen.models.character_model import create_character_model
from sharpen.models.policy import Policy, load_policy
from sharpen.training.differences import check_models, data_differences, model_differences
from sharpen.training.fingerprint import column_hashes, fingerprint
from sharpen.types import Group, Prompt, Sample, Trajectory


@pytest.mark.parametrize(
    ("old", "now"),
    [
        ({"reference": "0a"}, {"reference": {"files_sha256": "0a"}}),
        (
            {"bases": {"policy": {"path": "model", "sha256": "0a"}}},
            {"bases": {"policy": {"path": "model", "files_sha256": "0a"}}},
        ),
    ],
)
def test_hashes_of_an_earlier_version_are_not_taken_for_another_model(old: dict, now: dict) -> None:  # type: ignore[type-arg]
    with pytest.raises(CheckpointError, match="an earlier version of sharpen started this run"):
        list(model_differences(old, now))


def test_hashes_of_columns_tell_values_apart_and_equal_ones_not() -> None:
    def hashed(value: Any) -> str:
        return column_hashes(read_rows([{"prompt": "a", "answer": value}, {"prompt": "b"}]), ("answer",)).sha256[
            "answer"
        ]

    # What each line of the hashed text says, by hand: JSON with sorted keys, and a dash for a row without the column.
    assert hashed({"b": 1, "a": "x"}) == hashlib.sha256(b'{"a": "x", "b": 1}\n-\n').hexdigest()
    assert hashed({"b": 1, "a": 2}) == hashed({"a": 2, "b": 1})
    assert hashed({"x", "y", "z"}) == hashed({"z", "y", "x"})
    assert hashed(object()) == hashed(object())
    different = ("1", 1, 1.5, "1.5", None, True, date(2024, 1, 2), date(2024, 1, 3), b"1", [1], {1: 2, "a": 3})
    assert len({hashed(value) for value in different}) == len(different)


def differing(before: dict[str, Any], now: dict[str, Any], *, tokens: str = "d") -> dict[str, dict[str, Any]]:
    """What differs between columns of ``a.jsonl``, in words, with the entries; ``tokens`` is the hash of these now."""
    saved, present = (
        {"data": data, "columns": {setting: {"rows": "a.jsonl", **columns} for setting, columns in of.items()}}
        for data, of in (("d", before), (tokens, now))
    )
    return {one.what: dict(one.entries) for one in data_differences(saved, present)}


def test_columns_that_an_earlier_version_did_not_hash_are_not_compared() -> None:
    now = {"data.train": {"sha256": {"answer": "0a", "prompt": "0b"}, "count": 2}}
    assert differing({}, now) == {}
    assert differing({"data.train": {"sha256": {"answer": "0a"}}}, now) == {}
    assert differing({"data.train": {"sha256": {"answer": "0c"}}}, now) == {
        "the training data: a.jsonl has other values in column `answer`": {"columns/data.train/answer": ("0c", "0a")}
    }


def test_other_rows_are_named_by_what_is_other_in_them() -> None:
    def rows(count: int, **sha256: str) -> dict[str, Any]:
        return {"sha256": sha256, "count": count}

    before = {"data.train": rows(2, answer="0a", prompt="0b"), "data.held_out": rows(3, prompt="0c")}
    assert differing(before, before) == {}
    now = {"data.train": rows(2, answer="1a", prompt="1b"), "data.held_out": rows(4, prompt="1c")}
    assert differing(before, now, tokens="e") == {
        "the training data: a.jsonl has other values in columns `answer` and `prompt`": {
            "columns/data.train/answer": ("0a", "1a"),
            "columns/data.train/prompt": ("0b", "1b"),
            # The tokens follow from the rows.
            "data": ("d", "e"),
        },
        "`data.held_out`: a.jsonl has 4 rows, 3 before": {"columns/data.held_out/prompt": ("0c", "1c")},
    }
    assert list(differing(before, {"data.train": rows(2, prompt="0b")})) == [
        "the training data: a.jsonl no longer has column `answer`"
    ]
    assert list(differing(before, {"data.train": rows(2, answer="0a", prompt="0b", setup="0e")})) == [
        "the training data: a.jsonl has the new column `setup`"
    ]
    # Rows that are not read now, as without evaluations, are not compared.
    assert differing(before, {"data.train": before["data.train"]}) == {}


def test_other_tokens_of_the_same_rows_are_not_blamed_on_the_rows() -> None:
    rows = {"data.train": {"sha256": {"prompt": "0a"}, "count": 2}}
    held_out = {"sha256": {"prompt": "0b"}, "count": 2}
    by_tokenizer = "the same rows give other tokens, by another tokenizer, chat template or setting of `data`"
    assert differing(rows, rows, tokens="e") == {f"the training data: {by_tokenizer}": {"data": ("d", "e")}}
    both = differing(
        {**rows, "data.held_out": held_out},
        {**rows, "data.held_out": {"sha256": {"prompt": "0c"}, "count": 2}},
        tokens="e",
    )
    assert list(both) == [
        "`data.held_out`: a.jsonl has other values in column `prompt`",
        f"the training data: {by_tokenizer}",
    ]
    # Of a version that did not hash the prompts, who knows.
    assert list(differing({}, rows, tokens="e")) == ["the training data: other rows, or other tokens of them"]


def test_a_reference_that_is_the_base_has_no_hash_of_its_own() -> None:
    assert list(model_differences({"reference": None}, {"reference": None})) == []


def test_a_base_that_has_changed_is_named_and_cannot_be_accepted() -> None:
    before, now = (
        {"bases": {"policy": {"path": path, "files_sha256": sha256}}}
        for path, sha256 in (("first", "0a"), ("second", "0b"))
    )
    assert list(model_differences(before, before)) == []
    [difference] = model_differences(before, now)
    assert difference.kind == "impossible"
    assert difference.what == (
        "second: not the base model of before; the adapter of the policy belongs to first as it was then"
    )


def test_a_frozen_model_that_has_changed_is_named(tmp_path: Path) -> None:
    def teacher(seed: int) -> Policy:
        path = create_character_model(tmp_path / str(seed), alphabet="ab", hidden=8, layers=1, heads=2, seed=seed)
        return load_policy(path)

    first, other = (fingerprint((), (), None, {}, {"teacher": teacher(seed)}) for seed in (1, 2))
    assert list(model_differences(first, first)) == []
    for before in (first, fingerprint((), (), None, {}, {})):
        [difference] = model_differences(before, other)
        assert difference.what == "the teacher has other weights"
    # Held-out prompts are measured without the method's models.
    check_models(first, fingerprint((), (), None, {}, {}))
    with pytest.raises(ModelError, match="not what this run was started with: the teacher has other weights"):
        check_models(first, other)


def test_later_prefixes_belong_to_the_data() -> None:
    """A question between two answers is in no completion where the second answer is a sample of its own."""

    def hashed(*later: int) -> Any:
        samples = (Sample((1, 2), (3,), (True,)), Sample(later, (4,), (True,)))
        group = Group(Prompt("p", (1, 2), "", {}), (Trajectory(samples),))
        return fingerprint((), (group,), None, {}, {})["data"]

    assert hashed(1, 2, 5) == hashed(1, 2, 5)
    assert hashed(1, 2, 5) != hashed(1, 2, 6)
