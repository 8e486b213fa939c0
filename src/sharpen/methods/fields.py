"""Settings that several methods declare, each with a default of its own."""

from typing import Annotated, Literal

from pydantic import Field

GroupSize = Annotated[int, Field(ge=1, le=100_000, description="G, completions sampled per prompt.")]

Minibatches = Annotated[int, Field(ge=1, description="Optimizer steps per pass; each takes a share of the prompts.")]

EpsLow = Annotated[
    float,
    Field(gt=0, le=1, description="The ratio is clipped at 1 − eps_low where the advantage is negative; 1: never."),
]

EpsHigh = Annotated[
    float, Field(gt=0, le=1000, description="The ratio is clipped at 1 + eps_high where the advantage is positive.")
]

DualClip = Annotated[
    float | None,
    Field(
        gt=1,
        le=1000,
        description="Where the advantage is negative, a term of the objective is never below this times the advantage "
        "(Ye et al. 2020: 3).",
    ),
]

Reduction = Literal["per_sequence", "tokens_of_group", "tokens_of_batch", "constant"]
