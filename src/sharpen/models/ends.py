"""The tokens that end a sequence: where models declare them, and where a saved folder does."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

from transformers import GenerationConfig
from transformers.utils import GENERATION_CONFIG_NAME

from sharpen.errors import ModelError


def end_of_sequence_ids(generation_config: Any, config: Any, tokenizer: Any) -> frozenset[int]:
    """All end-of-sequence ids declared by the generation configuration, if any, the configuration or the tokenizer."""
    declared = (
        getattr(generation_config, "eos_token_id", None),
        getattr(config, "eos_token_id", None),
        tokenizer.eos_token_id,
    )
    return frozenset(i for value in declared for i in _ids(value))


def require_end(path: str, eos_ids: Collection[int]) -> None:
    """Raises ModelError if a model declares no end of sequence."""
    if not eos_ids:
        raise ModelError(
            f"{path}: no end-of-sequence token (eos_token_id) in generation_config.json, config.json or the tokenizer, "
            "so no completion would ever end: set one"
        )


def saved_generation_config(path: str) -> GenerationConfig | None:
    """The generation configuration in a folder or of a hub id; None if there is none: it is optional.

    Raises ModelError if there is one that cannot be read: transformers would go on with other ends of sequence.
    """
    try:
        return GenerationConfig.from_pretrained(path)
    # transformers raises whatever the content of a damaged file leads to.
    except Exception as error:
        if (Path(path) / GENERATION_CONFIG_NAME).is_file():
            raise ModelError(f"{path}: its {GENERATION_CONFIG_NAME} cannot be read: {error}") from error
        if not isinstance(error, OSError):
            raise
        return None


def saved_ends(path: str) -> frozenset[int]:
    """The end-of-sequence ids in the generation configuration of a folder or hub id."""
    return frozenset(_ids(getattr(saved_generation_config(path), "eos_token_id", None)))


def write_ends(folder: Path, eos_ids: Collection[int], model: Any) -> None:
    """Let ``generation_config.json`` in a folder that ``model`` was saved to name all of ``eos_ids``.

    An adapter's folder gets one too, that of the model. The file is changed as JSON: transformers refuses to save a
    configuration that it thinks contradictory once it is changed, even if the model came with it.
    """
    file = folder / GENERATION_CONFIG_NAME
    found = getattr(model, "generation_config", None)
    if not file.is_file() and found is not None:
        found.to_json_file(file, use_diff=True, keys_to_pop=["compile_config"])
    settings = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    declared = list(_ids(settings.get("eos_token_id")))
    if set(declared) >= set(eos_ids):
        return
    ids = [*declared, *sorted(set(eos_ids) - set(declared))]
    settings["eos_token_id"] = ids[0] if len(ids) == 1 else ids
    file.write_text(json.dumps(settings, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _ids(value: Any) -> Iterable[int]:
    if value is None:
        return ()
    return (int(value),) if isinstance(value, int) else (int(v) for v in value)
