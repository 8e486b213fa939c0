"""The base model that an adapter was trained on, recorded beside the adapter: on any other it means nothing.

peft and transformers do not read this file. Adapters made elsewhere have none and cannot be checked.
"""

from __future__ import annotations

import json
from pathlib import Path

from sharpen.errors import ModelError
from sharpen.models.adapter import Adapter
from sharpen.models.adapter_files import AdapterFiles
from sharpen.models.weight_files import model_sha256

RECORD = "base_model.json"


def write_base(adapter: Adapter, folder: Path) -> None:
    """Record the adapter's base model in its folder, if the hash of its weights is known."""
    file = folder / RECORD
    if adapter.base_sha256 is None:
        file.unlink(missing_ok=True)
        return
    record = {"path": adapter.recorded_base, "files_sha256": adapter.base_sha256}
    file.write_text(json.dumps(record, indent=2), encoding="utf-8")


def check_base(files: AdapterFiles, loaded: Adapter | None = None) -> None:
    """Raises ModelError if the base model's weights are not those that a local adapter was trained on.

    ``loaded`` is the adapter that is to get the saved weights, which knows its base; without it, the base that
    ``files`` names is hashed, if there is a hash to compare with.
    """
    file = Path(files.path) / RECORD
    if not file.is_file():
        return
    try:
        record = json.loads(file.read_text(encoding="utf-8"))
        path, before = record["path"], record["files_sha256"]
    except (ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{file}: cannot be read: {error!r}") from error
    base = files.base if loaded is None else loaded.base
    now = None if loaded is None else loaded.base_sha256
    if (now or model_sha256(base)) != before:
        raise ModelError(
            f"{base}: not the base model that the adapter was trained on; {files.path} belongs to {path} as it was then"
        )
