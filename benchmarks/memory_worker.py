"""Does a run in this process and prints the bytes at its peak, beyond those of the imported libraries.

python benchmarks/memory_worker.py RECIPE.yaml
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
import transformers  # noqa: F401

from sharpen.launch.run import start
from sharpen.recipe.loading import load_recipe


def kernel_bytes(field: str) -> int:
    """A line of the kernel's account of this process, in bytes."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(f"{field}:"))


def main() -> None:
    recipe = load_recipe(sys.argv[1])
    torch.ones(1)
    before = kernel_bytes("VmRSS")
    start(recipe)
    print(kernel_bytes("VmHWM") - before)


if __name__ == "__main__":
    main()
