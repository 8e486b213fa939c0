"""Which checkpoints a run has: those that ``checkpoints/manifest.json`` names, by step, and no other folder.

The list has the hash of each checkpoint's own manifest. It is written before a checkpoint gets its name, so that a
complete checkpoint counts as soon as it has its name, and another folder of that name never. A process that is killed
in between leaves the checkpoint under its other name, and `recover` gives it its own. A checkpoint that is listed and
not there was removed by a person, or is about to get its name.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path

from sharpen.errors import CheckpointError
from sharpen.runs.checkpoint_check import MANIFEST, SHA256, Uses, damage, read_json, read_manifest, sha256, step_in_name
from sharpen.system.files import PARTIAL_SUFFIX, flush, named_write_errors, write_text

LIST = "manifest.json"
PARTIAL, REPLACED, REMOVED = ".partial_", ".replaced_", ".removed_"
DAMAGED, UNLISTED = "damaged_", "unlisted_"

_STEP = re.compile(r"0|[1-9][0-9]{0,17}")
_CHANGED = "this folder"
_LOOKS = 10
"""How often a reader looks again if all checkpoints that it saw have been replaced by later ones meanwhile."""
_WITHOUT_LIST = f"without this file, each step_<number> counts whose own {MANIFEST} names that step"


def checkpoint_path(folder: Path, step: int) -> Path:
    return folder / f"step_{step:06d}"


def partial_path(folder: Path, step: int) -> Path:
    """Where the checkpoint of ``step`` is written before it gets its name."""
    return folder / f"{PARTIAL}{step:06d}"


def checkpoints(folder: Path) -> list[Path]:
    """The checkpoints of a run, the latest last. ``problem`` says whether one is sound.

    Raises CheckpointError if their list cannot be read.
    """
    return [checkpoint_path(folder, step) for step in _present(folder, _listed(folder))]


def has_checkpoint(folder: Path, step: int) -> bool:
    """Whether the run has a checkpoint of that step."""
    return checkpoint_path(folder, step) in checkpoints(folder)


def unlisted(folder: Path) -> list[Path]:
    """Folders that look like checkpoints of the run and are none: copies, and checkpoints of other runs."""
    own = checkpoints(folder)
    return sorted(path for path in folder.glob("step_*") if path.is_dir() and path not in own)


def problem(checkpoint: Path, uses: Uses = "everything") -> str | None:
    """What is wrong with a checkpoint in its run's folder, or None. One that is not listed is compared with itself."""
    step = step_in_name(checkpoint)
    return damage(checkpoint, uses, listed=None if step is None else _listed(checkpoint.parent).get(step))


def latest_sound(folder: Path, uses: Uses = "everything") -> tuple[Path | None, dict[Path, str]]:
    """The latest checkpoint that is sound, if any, and the later ones, the latest first, with what is wrong.

    The run may be going on, and remove checkpoints while they are read.
    """
    damaged: dict[Path, str] = {}
    for _ in range(_LOOKS):
        damaged, seen = {}, checkpoints(folder)
        for checkpoint in reversed(seen):
            if (found := problem(checkpoint, uses)) is None:
                return checkpoint, damaged
            damaged[checkpoint] = found
        if checkpoints(folder) == seen:
            break
    return None, damaged


def begin_list(folder: Path) -> None:
    """The empty list of a new run: what is put into its folder before its first checkpoint does not count either."""
    with named_write_errors(folder, _CHANGED):
        _write(folder, {})


def publish(partial: Path, step: int) -> Path | None:
    """List the complete checkpoint in ``partial`` and give it its name; an older one of that step is then removed.

    A folder that has the name and is not listed is renamed first: returns its new name, or None.
    """
    folder, final = partial.parent, checkpoint_path(partial.parent, step)
    moved = None
    if os.path.lexists(final) and not _is_listed(final, _listed(folder)):
        moved = _free(final.with_name(f"{UNLISTED}{final.name}"))
        os.rename(final, moved)
    _write(folder, {**_present(folder, _listed(folder)), step: sha256(partial / MANIFEST)})
    _rename(partial, final)
    return moved


def is_published(partial: Path, step: int) -> bool:
    """Whether the list names the checkpoint that is still in ``partial``: then `recover` gives it its name."""
    return (partial / MANIFEST).is_file() and _listed(partial.parent).get(step) == sha256(partial / MANIFEST)


def prune(folder: Path, keep: int, best: int | None) -> None:
    """Remove all checkpoints but the latest ``keep`` and that of step ``best``.

    A folder in the place of one, with another manifest than the list has, stays where it is.
    """
    listed = _listed(folder)
    old = [checkpoint_path(folder, step) for step in list(_present(folder, listed))[:-keep] if step != best]
    gone = [checkpoint for checkpoint in old if _is_listed(checkpoint, listed)]
    if not gone:
        return
    with named_write_errors(folder, _CHANGED):
        for checkpoint in gone:
            # Renamed first: half removed, it must not look like a checkpoint.
            _rename(checkpoint, folder / f"{REMOVED}{checkpoint.name}")
        _write(folder, _present(folder, listed))
        for checkpoint in gone:
            _remove(folder / f"{REMOVED}{checkpoint.name}")


def set_aside(folder: Path, damaged: Iterable[Path]) -> None:
    """Rename damaged checkpoints, so that they neither count as the latest nor make ``prune`` remove a sound one."""
    listed = _listed(folder)
    with named_write_errors(folder, _CHANGED):
        for checkpoint in damaged:
            _rename(checkpoint, folder / f"{DAMAGED}{checkpoint.name}")
        if (present := _present(folder, listed)) != listed:
            _write(folder, present)


def recover(folder: Path) -> None:
    """Clean up after a killed process. Requires the run's lock: it removes what another process may be writing."""
    if folder.is_dir():
        with named_write_errors(folder, _CHANGED):
            _recover(folder)


def _recover(folder: Path) -> None:
    (folder / f"{LIST}{PARTIAL_SUFFIX}").unlink(missing_ok=True)
    listed = _listed(folder)
    for step in listed:
        if is_published(partial := partial_path(folder, step), step):
            _rename(partial, checkpoint_path(folder, step))
    for replaced in folder.glob(f"{REPLACED}*"):
        name = folder / replaced.name.removeprefix(REPLACED)
        # Without a successor it is complete: it is removed only after the successor has its name.
        if not name.exists():
            os.rename(replaced, name)
    for left in [path for prefix in (PARTIAL, REPLACED, REMOVED) for path in folder.glob(f"{prefix}*")]:
        _remove(left)
    present = _present(folder, listed)
    if present != listed or not (present or (folder / LIST).exists()):
        _write(folder, present)


def _listed(folder: Path) -> dict[int, str]:
    """The hash of each checkpoint's manifest by its step, in ascending order."""
    file = folder / LIST
    try:
        found = read_json(file)
    except CheckpointError as error:
        if isinstance(error.__cause__, FileNotFoundError):
            return _of_earlier_version(folder)
        raise CheckpointError(f"{error}; {_WITHOUT_LIST}") from error
    hashes = found.get("checkpoints") if isinstance(found, dict) else None
    if not isinstance(hashes, dict) or not all(
        _STEP.fullmatch(step) and isinstance(digest, str) and SHA256.fullmatch(digest)
        for step, digest in hashes.items()
    ):
        raise CheckpointError(f"{file}: damaged, it is not a list of checkpoints; {_WITHOUT_LIST}")
    return {step: hashes[str(step)] for step in sorted(map(int, hashes))}


def _of_earlier_version(folder: Path) -> dict[int, str]:
    """Of a run without a list: all whose own manifest does not name another step, the damaged with no hash."""
    found: dict[int, str] = {}
    for path in folder.glob("step_*"):
        step = step_in_name(path)
        if step is None or path != checkpoint_path(folder, step) or not path.is_dir():
            continue
        try:
            if read_manifest(path).step == step:
                found[step] = sha256(path / MANIFEST)
        except CheckpointError:
            # It counts as damaged, and is named when it is checked.
            found[step] = ""
    return dict(sorted(found.items()))


def _present(folder: Path, listed: Mapping[int, str]) -> dict[int, str]:
    return {step: digest for step, digest in listed.items() if checkpoint_path(folder, step).is_dir()}


def _is_listed(checkpoint: Path, listed: Mapping[int, str]) -> bool:
    """Whether the folder is the one that the run wrote, whatever its files are now."""
    step, manifest = step_in_name(checkpoint), checkpoint / MANIFEST
    return step is not None and manifest.is_file() and listed.get(step) == sha256(manifest)


def _write(folder: Path, hashes: Mapping[int, str]) -> None:
    ordered = {str(step): digest for step, digest in sorted(hashes.items()) if digest}
    write_text(folder / LIST, json.dumps({"checkpoints": ordered}, indent=1))
    flush(folder)


def _rename(folder: Path, to: Path) -> None:
    """Rename a folder; an older folder of that name is removed only after that."""
    replaced = to.with_name(f"{REPLACED}{to.name}")
    if os.path.lexists(to):
        _remove(replaced)
        os.rename(to, replaced)
    os.rename(folder, to)
    flush(to.parent)
    _remove(replaced)


def _remove(folder: Path) -> None:
    """Remove a folder, if it is there; of a link to a folder elsewhere, the link."""
    if folder.is_symlink():
        folder.unlink()
    elif folder.exists():
        shutil.rmtree(folder)


def _free(name: Path) -> Path:
    """``name``, or the first of ``name_2``, ``name_3``, … that nothing has."""
    free, number = name, 2
    while os.path.lexists(free):
        free, number = name.with_name(f"{name.name}_{number}"), number + 1
    return free
