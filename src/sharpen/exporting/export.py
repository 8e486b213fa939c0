"""``sharpen export`` and `sharpen.export`: a trained model as a Hugging Face folder, a GGUF file or a card."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal, get_args

import torch

from sharpen.errors import ModelError, RecipeError
from sharpen.exporting.adapters import check_merged, check_trained
from sharpen.exporting.card import model_card, run_name
from sharpen.exporting.gguf_file import check_gguf, refuse_without_packages, write_gguf
from sharpen.exporting.gguf_weights import GgufType, refuse_unproven
from sharpen.exporting.huggingface import check_folder, known_answers, write_folder
from sharpen.exporting.origin import Origin, configuration, find_origin, own_dtype
from sharpen.exporting.report import Checks, Export
from sharpen.launch.handle import Run
from sharpen.models.model import Model
from sharpen.models.policy import Policy, load_policy
from sharpen.models.scorer import load_scorer
from sharpen.system.files import flush, named_write_errors, new_folder

Target = Literal["hf", "gguf", "card"]
CARD = "README.md"

_SHORT: dict[torch.dtype, GgufType] = {torch.float32: "f32", torch.float16: "f16", torch.bfloat16: "bf16"}
_TYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16} | {
    short: dtype for dtype, short in _SHORT.items()
}


def export(
    name: str | Path | Run,
    to: Target,
    out: str | Path | None = None,
    *,
    dtype: str | None = None,
    overwrite: bool = False,
    trust_remote_code: bool = False,
) -> Export:
    """Write a model as others take it, and compare what was written with the model before it gets its name.

    Args:
        name: a run, which stands for its latest checkpoint, a checkpoint, a model folder or a hub id.
        to: ``hf``, a folder for transformers with the adapter merged; ``gguf``, one file; ``card``, a README.md.
        out: the folder to write, or the file for gguf and card. Default: beside the run, or in the working directory.
        dtype: ``float32``, ``bfloat16``, ``float16``, and ``q8_0`` for gguf. Default: that of the base model's files.
        overwrite: replace what is at ``out``, once the new is complete.
        trust_remote_code: run Python code that comes with the model.

    Raises:
        SharpenError: it cannot be exported, or what was written differs from the model; then nothing is left.
    """
    if to not in get_args(Target):
        raise RecipeError(f"to: {to!r} is none of {', '.join(get_args(Target))}")
    origin = find_origin(str(name.path if isinstance(name, Run) else name), trust_remote_code=trust_remote_code)
    title = run_name(origin.run) if origin.run is not None else Path(origin.path).expanduser().name
    target = _target(out, to, origin, title)
    _refuse_existing(target, overwrite=overwrite)
    if to == "card":
        if dtype is not None:
            raise RecipeError("dtype: a card has no type")
        with named_write_errors(target, "the model card"), _replacing(target) as file:
            file.write_text(model_card(origin, title), encoding="utf-8")
        return Export(target)
    if to == "gguf":
        refuse_without_packages()
        if origin.kind is not None:
            raise ModelError(f"{origin.path}: only language models can be written to GGUF, this one gives scores")
        refuse_unproven(configuration(origin, trust_remote_code=trust_remote_code), origin.path)
    asked = _asked(dtype, to, origin, trust_remote_code=trust_remote_code)
    model = _loaded(origin, trust_remote_code=trust_remote_code)
    checks = Checks()
    if isinstance(model, Policy) and model.value_head is not None:
        checks.not_checked.append("the value head: it is left out, as nothing but training reads it")
    rows, expected = known_answers(model)
    if isinstance(model, Policy):
        check_merged(origin, rows, expected, checks)
    with named_write_errors(target, "the exported model"), _replacing(target) as partial:
        if isinstance(asked, str):
            assert isinstance(model, Policy)
            told = write_gguf(model, partial, asked, title, checks)
            rounding = check_gguf(model, rows, expected, partial, asked, told, checks)
        else:
            write_folder(model, partial, asked)
            rounding = check_folder(model, rows, expected, partial, asked, checks, trust_remote_code=trust_remote_code)
        check_trained(origin, rows, expected, rounding, checks)
        done = Export(target, tuple(checks.checked), tuple(checks.not_checked))
        if to == "hf" and origin.run is not None:
            (partial / CARD).write_text(model_card(origin, title, done.lines), encoding="utf-8")
    return done


def _target(out: str | Path | None, to: Target, origin: Origin, title: str) -> Path:
    if out is not None:
        path = Path(out).expanduser()
        return path / CARD if to == "card" and path.is_dir() else path
    parent = Path() if origin.run is None else origin.run.path
    return parent / {"hf": f"{title}-hf", "gguf": f"{title}.gguf", "card": CARD}[to]


def _refuse_existing(target: Path, *, overwrite: bool) -> None:
    if overwrite or not target.exists() or (target.is_dir() and not any(target.iterdir())):
        return
    raise ModelError(f"{target} already exists: choose another place (--out), or replace it with --overwrite")


def _asked(dtype: str | None, to: Target, origin: Origin, *, trust_remote_code: bool) -> torch.dtype | GgufType:
    if dtype == "q8_0" and to == "gguf":
        return "q8_0"
    if dtype is not None and dtype not in _TYPES:
        known = ["float32", "bfloat16", "float16", *(["q8_0"] if to == "gguf" else [])]
        raise RecipeError(f"dtype: {dtype!r} is none of {', '.join(known)}")
    found = own_dtype(origin, trust_remote_code=trust_remote_code) if dtype is None else _TYPES[dtype]
    return _SHORT[found] if to == "gguf" else found


def _loaded(origin: Origin, *, trust_remote_code: bool) -> Model:
    settings: dict[str, Any] = {"device": "cpu", "compiled": False, "trust_remote_code": trust_remote_code}
    if origin.kind is None:
        return load_policy(origin.path, **settings)
    return load_scorer(origin.path, kind=origin.kind, **settings)


@contextmanager
def _replacing(target: Path) -> Iterator[Path]:
    """Yield a path to write a file or folder to, which takes the place of ``target`` once it is complete."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if not target.exists():
        with new_folder(target) as partial:
            yield partial
            _flush_all(partial)
        return
    with TemporaryDirectory(prefix=f".{target.name}-", dir=target.parent) as work:
        partial = Path(work) / "whole"
        yield partial
        _flush_all(partial)
        if target.is_dir():
            target.rename(Path(work) / "replaced")
        partial.rename(target)


def _flush_all(path: Path) -> None:
    for file in (*sorted(path.rglob("*")), path) if path.is_dir() else (path,):
        flush(file)
