"""The folder of one recipe's runs with several seeds: ``seeds.yaml`` and a run in each ``seed_<seed>``."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from sharpen.system.files import named_write_errors, write_text

_NAME = re.compile(r"seed_(\d+)")


class SeedsFolder:
    """The subfolders say which seeds there are; they are made before the recipe is written."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.recipe = path / "seeds.yaml"
        self.summary = path / "seeds.json"
        self.plot = path / "plot.png"

    @property
    def exists(self) -> bool:
        return self.recipe.is_file()

    def initialise(self, recipe: str, seeds: Sequence[int]) -> None:
        """Make the folders of these seeds; ``recipe`` is YAML."""
        with named_write_errors(self.path, "the folder of the seeds"):
            for seed in seeds:
                self.run(seed).mkdir(parents=True, exist_ok=True)
            write_text(self.recipe, recipe)

    def seeds(self) -> tuple[int, ...]:
        found = (_NAME.fullmatch(path.name) for path in self.path.iterdir() if path.is_dir())
        return tuple(sorted(int(match[1]) for match in found if match))

    def run(self, seed: int) -> Path:
        """The folder of one seed's run."""
        return self.path / f"seed_{seed}"

    def output(self, seed: int) -> Path:
        """What a seed's process printed."""
        return self.run(seed) / "output.log"

    def refusal(self) -> str:
        """Why this folder cannot stand for one run."""
        return (
            f"{self.path} holds the runs of several seeds, not one run: name one of "
            f"{', '.join(str(self.run(seed)) for seed in self.seeds())}"
        )
