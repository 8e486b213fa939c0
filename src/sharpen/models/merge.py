"""Merges an adapter into its base model, as an ordinary model folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sharpen.errors import ModelError
from sharpen.models.adapter_files import find_adapter
from sharpen.models.dtype import SavedDtype
from sharpen.models.load import located
from sharpen.models.model import Model
from sharpen.models.policy import load_policy
from sharpen.models.scorer import Kind, load_scorer
from sharpen.system.files import named_write_errors, new_folder


def merge(
    path: str | Path, folder: str | Path, *, dtype: SavedDtype = "float32", trust_remote_code: bool = False
) -> Path:
    """Merge the adapter at ``path`` into its base and write the model to ``folder`` in ``dtype``; returns ``folder``.

    The sum is computed in float32, then rounded. The folder is written atomically.

    Raises ModelError if there is no adapter at ``path``, if ``folder`` is not empty, or if a weight is too large for
    ``dtype``, and DiskError if the folder cannot be written.
    """
    folder = Path(folder)
    adapter = find_adapter(located(path))
    if adapter is None:
        raise ModelError(f"{path}: already a full model, not an adapter")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ModelError(f"{folder} already exists: remove it or choose another folder")
    settings: dict[str, Any] = {"device": "cpu", "trust_remote_code": trust_remote_code}
    if adapter.scores:
        kind: Kind = "sequence" if adapter.config["task_type"] == "SEQ_CLS" else "token"
        model: Model = load_scorer(adapter.path, kind=kind, **settings)
    else:
        model = load_policy(adapter.path, **settings)
    bytes_per_weight = {"float32": 4}.get(dtype, 2)
    needed = sum(weight.numel() for weight in model.parameters()) * bytes_per_weight
    with named_write_errors(folder, "the merged model", needed), new_folder(folder) as whole:
        model.save(whole, dtype)
    return folder
