"""Commands that measure a model and talk to it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sharpen.cli.commands.options import (
    ChatTemplate,
    ChatTemplateKwargs,
    Dtype,
    MaxNewTokens,
    Model,
    System,
    TrustRemoteCode,
)


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
    columns: Annotated[
        str | None,
        typer.Option(metavar="YAML", help="Names of columns, as in '{prompt: question}'. Default: the run's."),
    ] = None,
    chat: Annotated[
        bool | None,
        typer.Option("--chat/--no-chat", help="Wrap plain text prompts as user messages. Default: the run's."),
    ] = None,
    system: System = None,
    chat_template_kwargs: ChatTemplateKwargs = None,
    chat_template: ChatTemplate = None,
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
            "columns": columns,
            "chat": chat,
            "system": system,
            "chat_template_kwargs": chat_template_kwargs,
            "chat_template": chat_template,
            "stop": stop,
        },
        task=task,
        data=data,
        reward=reward or [],
        as_json=json,
        out=out,
        trust_remote_code=trust_remote_code,
    )


def chat(
    model: Model,
    temperature: Annotated[float, typer.Option(min=0.0, help="0 is greedy decoding.")] = 0.7,
    top_p: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Sample from the most likely tokens of this total probability.")
    ] = 1.0,
    max_new_tokens: MaxNewTokens = None,
    system: System = None,
    chat_template_kwargs: ChatTemplateKwargs = None,
    chat_template: ChatTemplate = None,
    seed: Annotated[int | None, typer.Option(min=0, help="The same seed gives the same answers.")] = None,
    dtype: Dtype = None,
    trust_remote_code: TrustRemoteCode = False,
) -> None:
    """Talk to a model in the terminal.

    /reset starts a new conversation, /quit ends. A model without a chat template completes what is typed: ask the
    demo's model 7+8-3+9=

    A run or checkpoint brings its system message, chat template and its arguments, stop strings, answer length and
    compute dtype.
    """
    from sharpen.cli.chat import talk
    from sharpen.cli.yaml_option import yaml_option

    talk(
        model,
        temperature=temperature,
        top_p=top_p,
        max_new_tokens=max_new_tokens,
        system=system,
        chat_template=chat_template,
        chat_template_kwargs=yaml_option("chat-template-kwargs", chat_template_kwargs),
        seed=seed,
        dtype=dtype,
        trust_remote_code=trust_remote_code,
    )
