"""Runs every hostile program and forged solution on this machine: ``python tests/sandbox/battery``.

Does what ``sharpen sandbox check`` does, with all programs, in one to two minutes. Exits with 1 if any gets through.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

TREE = Path(__file__).parents[3]
sys.path[:0] = [str(TREE / "tests" / "sandbox"), str(TREE / "src")]

from battery import ALL  # noqa: E402
from sharpen.cli.sandbox import check  # noqa: E402
from sharpen.errors import SharpenError  # noqa: E402
from sharpen.sandbox import Isolation  # noqa: E402


def main(
    isolation: Annotated[Isolation, typer.Option(help="The level; auto takes the best there is.")] = Isolation.AUTO,
    unsafe: Annotated[bool, typer.Option("--unsafe", help="Allow --isolation none; runs harmless ones only.")] = False,
) -> None:
    """Run every hostile program and forged solution on this machine."""
    try:
        check(isolation, unsafe=unsafe, programs=ALL)
    except SharpenError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    typer.run(main)
