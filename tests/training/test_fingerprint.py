"""What a checkpoint says of the models of its run."""

from pathlib import Path

import pytest

from sharpen.errors import CheckpointError, ModelError
from sharpen.models.character_model import create_character_model
from sharpen.models.policy import Policy, load_policy
from sharpen.training.fingerprint import check_fingerprint, check_models, fingerprint


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


def test_a_reference_that_is_the_base_has_no_hash_of_its_own() -> None:
    check_fingerprint({"data": "d", "reference": None}, {"data": "d", "reference": None})


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
