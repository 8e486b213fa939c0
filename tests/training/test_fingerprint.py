"""What a checkpoint says of the models of its run."""

import pytest

from sharpen.errors import CheckpointError
from sharpen.training.fingerprint import check_fingerprint


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
