"""A run whose checkpoints are in bfloat16 is the run whose checkpoints are in float32."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from sharpen.launch.run import resume, start
from sharpen.models.policy import load_policy
from sharpen.models.saved_dtype import REMAINDER
from sharpen.models.scorer import load_scorer
from sharpen.runs.checkpoint_state import load_state
from tiny_runs import Raising, reward_file, tiny_recipe, tiny_start_model

STEPS = 4


class PowerCut(KeyboardInterrupt):
    """Nothing catches it, not even where a logger raises it."""


def fall() -> None:
    raise PowerCut


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_start_model(tmp_path_factory.mktemp("dtype") / "model")


def recipe_of(path: Path, model: Path, name: str, dtype: str, /, **changes: Any) -> Any:
    settings: dict[str, Any] = {
        "training": {"steps": STEPS},
        "optimizer": {"warmup_steps": 0, "schedule": "constant", "learning_rate": 0.02},
        "checkpoint": {"every": 1, "keep": 9, "best": None, "dtype": dtype},
    }
    return tiny_recipe(path, model, name, **{**settings, **changes})


def tensors(folder: Path) -> dict[str, Tensor]:
    return {
        f"{file.relative_to(folder)}: {name}": tensor
        for file in sorted(folder.rglob("*.safetensors"))
        for name, tensor in load_file(file).items()
    }


@pytest.mark.parametrize(
    ("name", "settings"),
    [("grpo", {}), ("sft", {}), ("ppo", {}), ("grpo", {"lora": {"rank": 2}}), ("reward_model", {})],
)
def test_a_resumed_run_ends_bit_for_bit_as_in_float32(
    name: str, settings: dict[str, Any], model: Path, tmp_path: Path
) -> None:
    changes: dict[str, Any] = {"model": settings} if settings else {}
    if name in ("grpo", "ppo"):
        changes["reward"] = reward_file(tmp_path / "reward.py")
    plain = start(recipe_of(tmp_path / "float32", model, name, "float32", **changes))
    with pytest.raises(PowerCut):
        start(
            recipe_of(tmp_path / "bfloat16", model, name, "bfloat16", **changes),
            loggers=[Raising(lambda step: step == 3, fall)],
        )
    run = resume(tmp_path / "bfloat16")
    assert run.finished
    kind: Any = "sequence" if name == "reward_model" else None
    parts = ("", "critic") if name == "ppo" else ("",)
    for part in parts:
        models = [
            (
                load_scorer(r.model / part, kind=kind or "token", device="cpu")
                if kind or part
                else load_policy(r.model, device="cpu")
            )
            for r in (plain, run)
        ]
        exact, found = (m.model.state_dict() for m in models)
        assert all(torch.equal(tensor, exact[n]) for n, tensor in found.items())
        file = "adapter_model.safetensors" if settings else "model.safetensors"
        written, exact = (load_file(r.model / part / file) for r in (run, plain))
        assert {t.dtype for t in written.values()} == {torch.bfloat16}
        assert all(torch.equal(t, exact[n].bfloat16()) for n, t in written.items())
        assert any(not torch.equal(t.float(), exact[n]) for n, t in written.items())
    states = [{n: t for n, t in tensors(r.model / "trainer").items() if REMAINDER.name not in n} for r in (plain, run)]
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(states[0][n], states[1][n]) for n in states[0])


def test_the_best_reward_model_is_shifted_exactly(model: Path, tmp_path: Path) -> None:
    """It is read, shifted and written again after the last step: all of it exactly, as in float32."""
    shifts = []
    for dtype in ("float32", "bfloat16"):
        run = start(
            recipe_of(
                tmp_path / dtype,
                model,
                "reward_model",
                dtype,
                evaluation={"every": 1, "prompts": 6},
                optimizer={"learning_rate": 3.0},
                checkpoint={"every": 1, "keep": 9, "best": "loss", "dtype": dtype},
            )
        )
        assert run.best is not None
        assert run.best != run.model
        assert load_state(run.best)["shifted_by"] is not None
        assert (run.best / REMAINDER).exists() == (dtype == "bfloat16")
        shifts.append(dict(load_scorer(run.best, kind="sequence", device="cpu").model.state_dict()))
    assert all(torch.equal(shifts[0][n], shifts[1][n]) for n in shifts[0])
