"""A fixed reference that is another model than the initial policy: ``kl.path``."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from one_thread import one_thread
from plain_forward import plain_distributions, plain_logprobs, plain_model
from sharpen.errors import ChangedError, ModelError, RecipeError
from sharpen.launch.run import resume, start
from sharpen.models.character_model import create_character_model
from sharpen.runs.folder import read_metrics
from sharpen.training.learner import Learner
from tiny_runs import ALPHABET, digits, given, tiny_recipe, tiny_start_model

__all__ = ["one_thread"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_start_model(tmp_path_factory.mktemp("named") / "model")


def other_model(path: Path, *, alphabet: str = ALPHABET, seed: int = 21) -> Path:
    """Of another shape than the policy."""
    return create_character_model(path, alphabet=alphabet, hidden=24, layers=1, heads=2, context=32, seed=seed)


def recipe(run: Path, start_from: Path, kl: dict[str, Any], **changes: Any) -> Any:
    return tiny_recipe(
        run,
        start_from,
        "grpo",
        method={"beta": 0.1, "kl": kl, "updates_per_rollout": 1, "minibatches": 1},
        reward="<given in Python>",
        training={"steps": 2},
        evaluation={"every": 0},
        checkpoint={"every": 1, "best": None},
        **changes,
    )


@pytest.mark.parametrize("lora", [None, {"rank": 2, "alpha": 4}], ids=["all weights", "adapter"])
@pytest.mark.parametrize("estimator", ["k3", "exact"])
def test_the_kl_is_that_to_the_model_that_is_named(
    estimator: str, lora: dict[str, int] | None, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the first step, whose policy is the initial one: the mean over tokens of r − log r − 1, r = π_ref / π, or of
    KL(π ‖ π_ref).
    """
    steps: list[Any] = []
    learn = Learner.learn

    def recording(self: Learner, groups: Any, *arguments: Any, **options: Any) -> Any:
        steps.append(groups)
        return learn(self, groups, *arguments, **options)

    monkeypatch.setattr(Learner, "learn", recording)
    other = other_model(tmp_path / "other")
    asked = recipe(tmp_path / "run", model, {"path": str(other), "estimator": estimator}, model={"lora": lora})
    start(given(asked, {"reward": digits}))
    policy, reference = plain_model(model), plain_model(other)
    terms: list[float] = []
    for trajectory in (t for group in steps[0] for t in group.trajectories):
        prefix, tokens = trajectory.last.prefix_ids, trajectory.token_ids
        if estimator == "k3":
            log_r = plain_logprobs(reference, prefix, tokens) - plain_logprobs(policy, prefix, tokens)
            terms += (log_r.exp() - log_r - 1).tolist()
        else:
            p, q = (plain_distributions(m, prefix, tokens) for m in (policy, reference))
            terms += (p.exp() * (p - q)).sum(dim=-1).tolist()
    assert read_metrics(asked.run)[0]["kl"] == pytest.approx(sum(terms) / len(terms), rel=1e-5)
    assert sum(terms) / len(terms) > 0.005


def test_the_initial_policy_by_its_name_changes_nothing(model: Path, tmp_path: Path) -> None:
    for name, kl in (("unnamed", {}), ("named", {"path": str(model)})):
        start(given(recipe(tmp_path / name, model, kl), {"reward": digits}))
    weights = "checkpoints/step_000002/model.safetensors"
    assert (tmp_path / "named" / weights).read_bytes() == (tmp_path / "unnamed" / weights).read_bytes()


@pytest.mark.parametrize("lora", [None, {"rank": 2, "alpha": 4}], ids=["all weights", "adapter"])
def test_a_resumed_run_loads_it_again_and_notices_another(
    lora: dict[str, int] | None, model: Path, tmp_path: Path
) -> None:
    other = other_model(tmp_path / "other")
    run, stopped = tmp_path / "run", tmp_path / "stopped"
    for path in (run, stopped):
        start(given(recipe(path, model, {"path": str(other)}, model={"lora": lora}), {"reward": digits}))
    shutil.rmtree(stopped / "checkpoints" / "step_000002")
    assert resume(stopped, {"reward": digits}).finished
    weights = f"checkpoints/step_000002/{'model' if lora is None else 'adapter_model'}.safetensors"
    assert (stopped / weights).read_bytes() == (run / weights).read_bytes()
    shutil.rmtree(stopped / "checkpoints" / "step_000002")
    shutil.rmtree(other)
    other_model(other, seed=22)
    with pytest.raises(ChangedError, match="- the reference model has other weights"):
        resume(stopped, {"reward": digits})


@pytest.mark.parametrize("reference", ["reset", "average"])
def test_a_reference_that_moves_has_no_path(reference: str, model: Path, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"`method\.kl\.path` has no effect: only with reference fixed"):
        recipe(tmp_path / "run", model, {"path": "models/mine", "reference": reference})


def test_a_reference_reads_the_policys_tokens(model: Path, tmp_path: Path) -> None:
    other = other_model(tmp_path / "other", alphabet=ALPHABET + "xyz")
    with pytest.raises(ModelError, match="other: the reference reads the policy's tokens, but this model has others"):
        start(given(recipe(tmp_path / "run", model, {"path": str(other)}), {"reward": digits}))
