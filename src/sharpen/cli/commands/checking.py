"""Commands that examine something before a run: data, a reward, the sandbox."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from sharpen.cli.commands.options import TrustRemoteCode


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


def data_check(
    recipe: Annotated[str, typer.Argument(metavar="RECIPE.yaml", help="The recipe whose data is checked.")],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(metavar="KEY=VALUE", help="Settings to override, such as data.chat=true."),
    ] = None,
    show: Annotated[int, typer.Option(min=0, help="How many rows are shown of each file.")] = 3,
    trust_remote_code: TrustRemoteCode = False,
) -> None:
    """Show what the model will see of the data, and what looks wrong, before training.

    Reads every row as the run would, with the model's tokenizer and without its weights. Exits with 0 if every row can
    be read, with 1 if a run would stop at one, and with 2 if the check cannot be made.
    """
    from sharpen.cli.data import check

    if not check(recipe, overrides or [], show=show, trust_remote_code=trust_remote_code):
        raise typer.Exit(1)
