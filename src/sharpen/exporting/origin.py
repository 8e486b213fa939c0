"""Where an exported model comes from: its files, its adapter and its base model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from transformers import AutoConfig

from sharpen.errors import ModelError, SharpenError
from sharpen.models.adapter_files import AdapterFiles, find_adapter
from sharpen.models.load import located
from sharpen.models.scorer import Kind, saved_kind
from sharpen.models.settings import ModelSettings
from sharpen.recipe.loading import load_section
from sharpen.runs.folder import RunFolder
from sharpen.runs.lookup import find_model

LONGEST_CHAIN = 50
"""Runs that may follow one another; more of them are a circle."""


@dataclass(frozen=True, slots=True)
class Origin:
    """A model to export. ``base`` is what the first of its runs began with, None if that is not known.

    ``base_problem`` says why the base cannot be loaded, if it cannot.
    """

    path: str
    run: RunFolder | None
    notes: tuple[str, ...]
    adapter: AdapterFiles | None
    kind: Kind | None
    base: str | None
    base_problem: str | None


def find_origin(name: str, *, trust_remote_code: bool) -> Origin:
    """Raises SharpenError if there is no such model."""
    named = find_model(name)
    path = located(named.path)
    adapter = find_adapter(path)
    kind = saved_kind(path, trust_remote_code=trust_remote_code)
    base, problem = _base(named.run, adapter)
    return Origin(path, named.run, named.notes, adapter, kind, base, problem)


def _base(run: RunFolder | None, adapter: AdapterFiles | None) -> tuple[str | None, str | None]:
    if adapter is not None and run is None:
        return adapter.base, None
    if run is None:
        return None, "the folder does not say which model it was made from"
    base = None
    for _ in range(LONGEST_CHAIN):
        base = load_section(run.recipe, ModelSettings).path
        try:
            found = find_model(base)
            located(found.path)
        except SharpenError as error:
            return base, str(error)
        if found.run is None:
            nested = find_adapter(found.path)
            return (found.path, None) if nested is None else (nested.base, None)
        run = found.run
    return base, "its runs follow one another in a circle"


def own_dtype(origin: Origin, *, trust_remote_code: bool) -> torch.dtype:
    """The type of the base model's files; of the model's own where the base is not known."""
    known = origin.base if origin.base is not None and origin.base_problem is None else None
    dtype = _config(known or _weights(origin), trust_remote_code=trust_remote_code).dtype
    dtype = getattr(torch, dtype) if isinstance(dtype, str) else dtype
    return dtype if dtype in (torch.float32, torch.bfloat16, torch.float16) else torch.float32


def configuration(origin: Origin, *, trust_remote_code: bool) -> Any:
    """The model's configuration, before its weights are loaded."""
    return _config(_weights(origin), trust_remote_code=trust_remote_code)


def _weights(origin: Origin) -> str:
    return origin.path if origin.adapter is None else origin.adapter.base


def _config(path: str, *, trust_remote_code: bool) -> Any:
    try:
        return AutoConfig.from_pretrained(path, trust_remote_code=trust_remote_code)
    except (OSError, ValueError) as error:
        raise ModelError(f"{path}: cannot load this model: {error}") from error
