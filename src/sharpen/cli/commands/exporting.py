"""The command that takes a model elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from sharpen.cli.commands.options import Model, TrustRemoteCode
from sharpen.system.printable import printable


def export(
    model: Model,
    to: Annotated[
        Literal["hf", "gguf", "card"],
        typer.Option(help="hf: a folder for transformers; gguf: a file for llama.cpp; card: a model card."),
    ],
    out: Annotated[
        Path | None, typer.Option(help="The folder, or file, to write. Default: in the run's folder.")
    ] = None,
    dtype: Annotated[
        str | None,
        typer.Option(
            metavar="TYPE",
            help="float32, bfloat16 or float16; for gguf also q8_0. Default: that of the base model's files.",
        ),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what is there already.")] = False,
    trust_remote_code: TrustRemoteCode = False,
) -> None:
    """Write a model for other programs, an adapter merged into its base.

    What is written is read again and compared with the model. The lines that follow say what was checked and what could
    not be.
    """
    from sharpen.exporting.export import export as export_model

    done = export_model(model, to, out, dtype=dtype, overwrite=overwrite, trust_remote_code=trust_remote_code)
    for line in done.lines:
        typer.echo(printable(line), err=True)
    typer.echo(printable(f"{model}: {done.path}"))
