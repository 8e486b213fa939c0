"""What a checkpoint says of the models of its run."""

import hashlib
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from sharpen.data.rows import read_rows
from sharpen.errors import CheckpointError, DataError, ModelError
from sharpen.models.character_model import create_character_model
from sharpen.models.policy import Policy, load_policy
from sharpen.training.fingerprint import check_fingerprint, check_models, column_hashes, fingerprint
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
        check_fingerprint({"data": "d", **old}, {"data": "d", **now})


def test_hashes_of_columns_tell_values_apart_and_equal_ones_not() -> None:
    def hashed(value: Any) -> str:
        return column_hashes(read_rows([{"prompt": "a", "answer": value}, {"prompt": "b"}]), ("answer",))["answer"]

    # What each line of the hashed text says, by hand: JSON with sorted keys, and a dash for a row without the column.
    assert hashed({"b": 1, "a": "x"}) == hashlib.sha256(b'{"a": "x", "b": 1}\n-\n').hexdigest()
    assert hashed({"b": 1, "a": 2}) == hashed({"a": 2, "b": 1})
    assert hashed({"x", "y", "z"}) == hashed({"z", "y", "x"})
    assert hashed(object()) == hashed(object())
    different = ("1", 1, 1.5, "1.5", None, True, date(2024, 1, 2), date(2024, 1, 3), b"1", [1], {1: 2, "a": 3})
    assert len({hashed(value) for value in different}) == len(different)


def test_columns_that_an_earlier_version_did_not_hash_are_not_checked() -> None:
    now = {"data": "d", "columns": {"data.train": {"rows": "a.jsonl", "sha256": {"answer": "0a", "id": "0b"}}}}
    check_fingerprint({"data": "d"}, now)
    check_fingerprint({"data": "d", "columns": {"data.train": {"rows": "b.jsonl", "sha256": {"answer": "0a"}}}}, now)
    before = {"data": "d", "columns": {"data.train": {"rows": "b.jsonl", "sha256": {"answer": "0c", "id": "0d"}}}}
    with pytest.raises(
        DataError, match=r"training data is not .*: a\.jsonl has other values in columns `answer` and `id`"
    ):
        check_fingerprint(before, now)


@pytest.mark.parametrize("now", [{}, {"data.train": {"rows": "a.jsonl", "sha256": {"answer": "0a"}}}])
def test_an_optional_column_that_is_gone_is_found(now: dict[str, Any]) -> None:
    before = {"data.train": {"rows": "a.jsonl", "sha256": {"answer": "0a", "setup": "0b"}}}
    with pytest.raises(DataError, match=r"a\.jsonl has no longer columns? .*`setup`; a resumed run"):
        check_fingerprint({"data": "d", "columns": before}, {"data": "d", "columns": now})


def test_a_reference_that_is_the_base_has_no_hash_of_its_own() -> None:
    check_fingerprint({"data": "d", "reference": None}, {"data": "d", "reference": None})


def test_a_base_that_has_changed_is_named() -> None:
    before, now = (
        {"data": "d", "bases": {"policy": {"path": path, "files_sha256": sha256}}}
        for path, sha256 in (("first", "0a"), ("second", "0b"))
    )
    check_fingerprint(before, before)
    with pytest.raises(ModelError, match=r"second: not the base model that .* its policy belongs to first as it was"):
        check_fingerprint(before, now)


def test_a_frozen_model_that_has_changed_is_named(tmp_path: Path) -> None:
    def teacher(seed: int) -> Policy:
        path = create_character_model(tmp_path / str(seed), alphabet="ab", hidden=8, layers=1, heads=2, seed=seed)
        return load_policy(path)

    first, other = (fingerprint((), (), None, {}, {"teacher": teacher(seed)}) for seed in (1, 2))
    check_fingerprint(first, first)
    with pytest.raises(ModelError, match="the teacher is not the model that this run was started with"):
        check_fingerprint(first, other)
    with pytest.raises(ModelError, match="the teacher is not the model"):
        check_fingerprint(fingerprint((), (), None, {}, {}), other)
    # Held-out prompts are measured without the method's models.
    check_models(first, fingerprint((), (), None, {}, {}))
    with pytest.raises(ModelError, match="the teacher is not the model"):
        check_models(first, other)


def test_later_prefixes_belong_to_the_data() -> None:
    """A question between two answers is in no completion where the second answer is a sample of its own."""

    def hashed(*later: int) -> Any:
        samples = (Sample((1, 2), (3,), (True,)), Sample(later, (4,), (True,)))
        group = Group(Prompt("p", (1, 2), "", {}), (Trajectory(samples),))
        return fingerprint((), (group,), None, {}, {})["data"]

    assert hashed(1, 2, 5) == hashed(1, 2, 5)
    assert hashed(1, 2, 5) != hashed(1, 2, 6)
