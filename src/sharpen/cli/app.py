"""The command line: which commands there are."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from sharpen import __version__
from sharpen.cli.commands import checking, exporting, listing, showing, training, using
from sharpen.cli.python_output import make_python_output_printable
from sharpen.errors import SharpenError
from sharpen.report.console import complain
from sharpen.system.printable import printable
from sharpen.system.signals import exit_code
from sharpen.system.streams import lasting

ABOUT = """
Post-train language models with reinforcement learning, on a CPU or one GPU.

[bold]A first session[/bold]

  [cyan]sharpen demo[/cyan]                         minutes on a CPU, no download
  [cyan]sharpen get smollm2[/cyan]                  a small real model (93 MB)
  [cyan]sharpen run recipes/grpo_words.yaml[/cyan]  make it better at something
  [cyan]sharpen run --resume runs/grpo_words[/cyan] continue after Ctrl-C or a crash
  [cyan]sharpen view[/cyan]                         look at the runs in a browser, also while they train
  [cyan]sharpen eval runs/grpo_words[/cyan]         measure the result
  [cyan]sharpen chat runs/grpo_words[/cyan]         talk to it

Then with your own data, from which this writes a recipe:

  [cyan]sharpen init DATA --model MODEL[/cyan]

A recipe is a YAML file of settings. Arguments after it override some of them:

  [cyan]sharpen run recipes/grpo_words.yaml training.steps=50 run=runs/longer[/cyan]

Before you train: what the run will do and the memory it needs, what its reward accepts, what else can be set:

  [cyan]sharpen run recipes/grpo_words.yaml --dry-run[/cyan]
  [cyan]sharpen reward check recipes/grpo_words.yaml[/cyan]
  [cyan]sharpen settings[/cyan]
"""


_OF_THE_MACHINE = {
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EROFS,
    errno.EACCES,
    errno.EPERM,
    errno.EIO,
    errno.ENAMETOOLONG,
    errno.ELOOP,
    errno.EMFILE,
    errno.ENFILE,
}
"""Errors of the system that say what is wrong with a path, a disk or the limits of the machine."""


class Commands(TyperGroup):
    """Prints user errors without a traceback; bugs keep theirs."""

    def make_context(self, *given: Any, **settings: Any) -> Any:
        with _printable_usage_errors():
            return super().make_context(*given, **settings)

    def invoke(self, ctx: Any) -> Any:
        try:
            with _printable_usage_errors():
                return super().invoke(ctx)
        except SharpenError as error:
            complain(str(error))
            raise typer.Exit(2) from error
        except OSError as error:
            # Of a path that the user named or of the machine: not a bug, wherever it is found.
            if error.errno not in _OF_THE_MACHINE:
                raise
            complain(f"{error.filename or 'a file'}: {error.strerror}")
            raise typer.Exit(2) from error
        except KeyboardInterrupt as error:
            raise typer.Exit(exit_code(error)) from error


@contextmanager
def _printable_usage_errors() -> Iterator[None]:
    """Arguments may be names of files, which anyone may have chosen; usage errors quote them."""
    try:
        yield
    except Exception as error:
        # typer has no public name for its UsageError.
        if isinstance(error, typer.BadParameter.__bases__):
            usage_error: Any = error
            usage_error.message = printable(usage_error.message)
        raise


app = typer.Typer(
    cls=Commands,
    help=ABOUT,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_show_locals=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def main() -> None:
    # Lasting until exit: Python flushes both streams then, and changes the exit code if a flush fails.
    sys.stdout, sys.stderr = lasting(sys.stdout), lasting(sys.stderr)
    make_python_output_printable()
    # Not `app()`, which shows exceptions in its own way.
    typer.main.get_command(app)()


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


for command in (
    training.run,
    training.init,
    using.eval,
    using.chat,
    showing.report,
    showing.view,
    training.get,
    training.merge,
    exporting.export,
    training.demo,
    listing.methods,
    listing.metrics,
    listing.settings,
    listing.schema,
    listing.rewards,
    listing.tasks,
):
    app.command()(command)

sandbox = typer.Typer(no_args_is_help=True, context_settings={"help_option_names": ["-h", "--help"]})
sandbox.command("check")(checking.sandbox_check)
app.add_typer(sandbox, name="sandbox", help="The sandbox that runs programs written by a model.")

data = typer.Typer(no_args_is_help=True)
data.command("check")(checking.data_check)
app.add_typer(data, name="data", help="Examine the data of a recipe.")

reward = typer.Typer(no_args_is_help=True)
reward.command("check")(checking.reward_check)
app.add_typer(reward, name="reward", help="Examine the reward of a recipe.")


@sandbox.callback()
@data.callback()
@reward.callback()
def group() -> None:
    # Without a callback, Typer drops the name of a group's only command.
    return
