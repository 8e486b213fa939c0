"""Whether a checkpoint is as it was written: its manifest, every file that it names, and no other that is loaded."""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from sharpen.errors import CheckpointError

MANIFEST = "manifest.json"
STATE = "trainer/state.json"
REMAINDER = "trainer/remainder.safetensors"
SHA256 = re.compile(r"[0-9a-f]{64}")

Uses = Literal["everything", "model", "configuration"]
"""What a checkpoint is read for: to go on from it; for a model in it; for that model's configuration and tokenizer."""

_NAME = re.compile(r"step_([0-9]+)")
_WEIGHTS = re.compile(r"(adapter_)?model[^/]*\.safetensors")
_LOADED = re.compile(
    r"(?!\.)(.*\.(safetensors|bin|pt|pth|ckpt|h5|msgpack|json|py|jinja|model|spm|tiktoken|bpe)"
    r"|(vocab|merges|dict)\.txt|(tokenizer|chat_template).*)"
)
"""Names of files that a loader of models, tokenizers or templates may read; not notes, pictures and hidden files."""
_EXAMPLES = ("config.json", PurePosixPath(REMAINDER).name)
_TEMPLATES = "additional_chat_templates"
"""The one folder in a model's folder that loaders look into."""


@dataclass(frozen=True, slots=True)
class Manifest:
    """A checkpoint's own manifest: its step, and the hash of every file by its path in the checkpoint."""

    step: int
    sha256: Mapping[str, str]


def step_in_name(checkpoint: Path) -> int | None:
    """The step that a folder's name says, ``step_000020`` or ``step_1000000``; None for any other name."""
    found = _NAME.fullmatch(checkpoint.name)
    return None if found is None or len(found[1]) > 18 else int(found[1])


def read_json(file: Path) -> Any:
    """Raises CheckpointError if a file is missing, cannot be read, or is no JSON."""
    try:
        return json.loads(_content(file))
    except FileNotFoundError as error:
        raise CheckpointError(f"{file}: missing") from error
    except OSError as error:
        raise CheckpointError(f"{file}: cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{file}: damaged, it is not JSON") from error


def read_manifest(checkpoint: Path) -> Manifest:
    """Raises CheckpointError if a checkpoint has no manifest, or one that cannot be its own, whatever its files."""
    file = checkpoint / MANIFEST
    try:
        manifest = read_json(file)
    except CheckpointError as error:
        if isinstance(error.__cause__, FileNotFoundError):
            raise CheckpointError(f"{checkpoint}: no {MANIFEST}, it is incomplete") from error
        raise
    if not isinstance(manifest, dict):
        raise CheckpointError(f"{file}: damaged, it is not an object")
    step, hashes = manifest.get("step"), manifest.get("sha256")
    if type(step) is not int or step < 0:
        raise CheckpointError(f"{file}: damaged, its `step` is not a step")
    if not isinstance(hashes, dict) or not hashes:
        raise CheckpointError(f"{file}: damaged, its `sha256` names no files")
    for name, digest in hashes.items():
        if not _is_inside(name):
            raise CheckpointError(f"{file}: damaged, it names {name!r}, which is not a file of this folder")
        if not isinstance(digest, str) or not SHA256.fullmatch(digest):
            raise CheckpointError(f"{file}: damaged, it has no hash of {name!r}")
    if not any(_WEIGHTS.fullmatch(name) for name in hashes):
        raise CheckpointError(f"{file}: damaged, it names no weights")
    return Manifest(step, hashes)


def is_checkpoint(folder: Path) -> bool:
    """Whether a folder, wherever it is, is a checkpoint and not any other model: it has a trainer's state."""
    return (folder / STATE).is_file()


def damage(checkpoint: Path, uses: Uses = "everything", *, part: str = "", listed: str | None = None) -> str | None:
    """What is wrong with the files of a checkpoint that are used, or None.

    ``part`` is the subfolder of a model beside the main one, such as ``critic``. ``listed`` is the hash of the
    checkpoint's manifest, if the list of its run has it.
    """
    try:
        manifest = read_manifest(checkpoint)
        named = step_in_name(checkpoint)
        if named is not None and named != manifest.step:
            return f"{checkpoint / MANIFEST}: damaged, it is that of step {manifest.step}, not of {checkpoint.name}"
        if listed is not None and _digest_of(checkpoint / MANIFEST) != listed:
            return f"{checkpoint / MANIFEST}: damaged, it is not the one that its run wrote"
        used = (name for name in manifest.sha256 if _is_used(name, uses, part, manifest))
        for name in dict.fromkeys((*used, STATE)):
            _check_file(checkpoint, name, manifest)
        for name in _added(checkpoint, uses, part, manifest):
            return f"{checkpoint / name}: damaged, this file was added to the checkpoint: remove it"
        state = read_json(checkpoint / STATE)
        if not isinstance(state, dict) or state.get("step") != manifest.step:
            return f"{checkpoint / STATE}: damaged, it is not the state of step {manifest.step}"
    except CheckpointError as error:
        return str(error)
    return None


def sha256(path: Path) -> str:
    """The hash of a file's content; of a file that was hashed before and has not been written since, the same again."""
    found = path.stat()
    written_ns = max(found.st_mtime_ns, found.st_ctime_ns)
    # The clock of a file system has ticks: another change within the same one would not show in its times.
    if time.time_ns() - written_ns < 2e9:
        return _hashed(path)
    return _hashed_before(path, found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)


def _hashed(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@lru_cache(maxsize=4096)
def _hashed_before(path: Path, *_: int) -> str:
    return _hashed(path)


def _check_file(checkpoint: Path, name: str, manifest: Manifest) -> None:
    if name not in manifest.sha256:
        raise CheckpointError(f"{checkpoint / MANIFEST}: damaged, it does not name {name}")
    if _digest_of(checkpoint / name) != manifest.sha256[name]:
        raise CheckpointError(f"{checkpoint / name}: damaged, its hash is not that of the saved file")


def _digest_of(file: Path) -> str:
    try:
        _refuse_no_file(file)
        return sha256(file)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise CheckpointError(f"{file}: missing") from error
    except OSError as error:
        raise CheckpointError(f"{file}: cannot be read: {error.strerror}") from error


def _content(file: Path) -> bytes:
    _refuse_no_file(file)
    return file.read_bytes()


def _refuse_no_file(file: Path) -> None:
    """A folder, or a pipe, which would be waited for. A link counts as the file that it leads to."""
    if not stat.S_ISREG(file.stat().st_mode):
        raise CheckpointError(f"{file}: damaged, it is not a file")


def _is_inside(name: str) -> bool:
    path = PurePosixPath(name)
    plain = name.isprintable() and name == str(path) and path.parts and ".." not in path.parts
    return bool(plain) and not path.is_absolute() and name != "."


def _is_used(name: str, uses: Uses, part: str, manifest: Manifest) -> bool:
    if uses == "everything":
        return True
    if part:
        if not name.startswith(f"{part}/"):
            return False
        name = name.removeprefix(f"{part}/")
    elif any(name.startswith(f"{other}/") for other in _other_models(manifest)):
        return False
    if name.startswith("trainer/"):
        return name == REMAINDER and uses == "model"
    return uses == "model" or not name.endswith(".safetensors")


def _other_models(manifest: Manifest) -> set[str]:
    """The subfolders of models beside the main one."""
    return {name.partition("/")[0] for name in manifest.sha256 if re.fullmatch(r"[^/]+/(adapter_)?config\.json", name)}


def _added(checkpoint: Path, uses: Uses, part: str, manifest: Manifest) -> Iterator[str]:
    """Files that the manifest does not name and that would be loaded, by their paths in the checkpoint."""
    folders = {name.rpartition("/")[0] for name in manifest.sha256}
    folders |= {str(PurePosixPath(model) / _TEMPLATES) for model in ("", *_other_models(manifest))}
    for folder in sorted(folders):
        if any(_is_used(str(PurePosixPath(folder) / name), uses, part, manifest) for name in _EXAMPLES):
            for entry in _entries(checkpoint / folder):
                name = str(PurePosixPath(folder) / entry)
                known = name in manifest.sha256 or name == MANIFEST
                if not known and _LOADED.fullmatch(entry) and _is_used(name, uses, part, manifest):
                    yield name


def _entries(folder: Path) -> list[str]:
    """The names in a folder, but for those of folders; of a folder that is missing, none."""
    try:
        return sorted(entry for entry in os.listdir(folder) if not os.path.isdir(folder / entry))
    except (FileNotFoundError, NotADirectoryError):
        # What was in it is missing too, and was found before if it is used.
        return []
    except OSError as error:
        raise CheckpointError(f"{folder}: cannot be read: {error.strerror}") from error
