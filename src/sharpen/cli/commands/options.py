"""Options that several commands have."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

Model = Annotated[str, typer.Argument(metavar="MODEL", help="A run, a checkpoint, a model folder or a hub id.")]
MaxNewTokens = Annotated[int | None, typer.Option(min=1, help="Longest answer, in tokens. Default: the run's, or 256.")]
System = Annotated[str | None, typer.Option(help="A system message. Default: the run's.")]
ChatTemplate = Annotated[
    str | None,
    typer.Option(
        metavar="FILE", help="A chat template: a file, its text, or a name of the tokenizer's. Default: the run's."
    ),
]
ChatTemplateKwargs = Annotated[
    str | None,
    typer.Option(
        metavar="YAML", help="Arguments of the chat template, such as '{enable_thinking: false}'. Default: the run's."
    ),
]
Dtype = Annotated[
    Literal["auto", "float32", "bfloat16"] | None,
    typer.Option(
        help="Type of matrix products; auto: bfloat16 if the hardware supports it. Default: the run's, or float32."
    ),
]
TrustRemoteCode = Annotated[
    bool, typer.Option("--trust-remote-code", help="Run Python code that comes with the model.")
]
