"""The memory that a dry run expects is what the run then takes, within 20 %."""

import subprocess
import sys
from pathlib import Path

import pytest

from sharpen.data.tasks.arithmetic import ALPHABET
from sharpen.launch.dry_run import dry_run
from sharpen.models.character_model import create_character_model
from tiny_runs import reward_file, tiny_recipe

WORKER = Path(__file__).parents[2] / "benchmarks" / "memory_worker.py"


@pytest.mark.skipif(sys.platform != "linux", reason="reads the kernel's account of a process")
def test_a_run_takes_what_its_dry_run_expects(tmp_path: Path) -> None:
    """28 million weights: 108 MiB of them, twice as much for the moments, as much again for gradients."""
    model = create_character_model(
        tmp_path / "model", alphabet=ALPHABET, hidden=768, intermediate=2048, layers=4, heads=12, context=64
    )
    recipe = tiny_recipe(
        tmp_path / "run",
        model,
        "grpo",
        # The task's own reward is 0 for all that an untrained model writes, which gives no gradient.
        reward=reward_file(tmp_path / "rewards.py"),
        method={"beta": 0.0, "minibatches": 1, "updates_per_rollout": 1, "group_size": 8},
        rollout={"max_new_tokens": 24},
        training={"steps": 2, "prompts_per_step": 8, "tokens_per_microbatch": 1024},
        evaluation={"every": 0},
        checkpoint={"every": 0, "best": None},
    )
    expected = dry_run(recipe, say=lambda text: None).memory
    file = tmp_path / "recipe.yaml"
    file.write_text(recipe.to_yaml(), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, str(WORKER), str(file)], capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stderr
    measured = int(done.stdout.splitlines()[-1])
    assert measured > 400 * 2**20
    assert measured == pytest.approx(expected.total, rel=0.2)
