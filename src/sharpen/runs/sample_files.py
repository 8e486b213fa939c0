"""The samples of a run on disk: a file for each recent step, and one for every hundred sampled steps before these.

Which files there are follows from the steps alone: a run that was killed and resumed ends with those of one that was
not. A merged file holds all samples of the steps that its name says, and is whole before it gets its name. So if a
process was killed before the files that it replaces were removed, these hold nothing else, and do not count.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa

from sharpen.errors import DataError
from sharpen.runs.sample_merge import columns_of, merge, read_file, read_step, read_steps, steps_of, steps_with
from sharpen.runs.samples import write_parquet, write_table
from sharpen.runs.steps_in_words import steps_in_words
from sharpen.system.files import PARTIAL_SUFFIX, flush, named_write_errors

MERGED_STEPS = 100
"""So many sampled steps make one file."""
TRIES = 5
"""Files that another process merges meanwhile are looked for again so often."""
DAMAGED = "damaged_"
"""How the name of a file begins that was found damaged and set aside."""

Found = TypeVar("Found")
_SINGLE = re.compile(r"step_(\d+)\.parquet")
_MERGED = re.compile(r"steps_(\d+)-(\d+)\.parquet")


def file_name(step: int) -> str:
    """The name of the file of one step."""
    return f"step_{step:06d}.parquet"


class SampleFiles:
    """``step_000101.parquet`` and ``steps_000001-000100.parquet`` in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._unflushed: set[Path] = set()

    def write(self, step: int, rows: Sequence[Mapping[str, Any]], *, every: int = 1) -> list[str]:
        """Write the samples of a step; ``every`` is the number of steps between two samples.

        With the last of a hundred such steps, the files of these become one. Returns what was damaged, in sentences.
        Raises DiskError if they cannot be written.
        """
        file = self._single(step)
        with named_write_errors(file, f"the samples of step {step}"):
            write_parquet(file, rows)
        self._unflushed.add(file)
        if step == 0 or step % (MERGED_STEPS * every):
            return []
        return self._merge(range(step - MERGED_STEPS * every + 1, step + 1))

    def flush(self) -> None:
        """Have the samples on disk before a checkpoint counts on them."""
        with named_write_errors(self.folder, "the samples"):
            for file in sorted(self._unflushed):
                flush(file)
            if self._unflushed:
                flush(self.folder)
        self._unflushed.clear()

    def cut_back(self, step: int) -> list[str]:
        """Remove the samples after ``step`` and what a killed process left; returns what was damaged, in sentences."""
        said: list[str] = []
        with named_write_errors(self.folder, "the samples"):
            for partial in self.folder.glob(f"*.parquet{PARTIAL_SUFFIX}"):
                partial.unlink()
            for steps, merged in self._merged().items():
                if steps[-1] > step:
                    said += self._split(merged, range(steps[0], step + 1))
            current, files = self._files()
            merged_steps = {step for file in files.values() for step in steps_of(file)}
            for single, file in self._singles().items():
                if single > step:
                    file.unlink()
                elif single not in current:
                    # Left by a merge that was killed: what it could not read is not in the merged file.
                    if single in merged_steps:
                        file.unlink()
                    else:
                        _set_aside(file)
                        said.append(f"{file}: damaged; set aside as {DAMAGED}{file.name}")
        return said

    def steps(self) -> list[int]:
        """The steps that have samples. Raises DataError for a damaged file."""

        def read() -> list[int]:
            singles, merged = self._files()
            return sorted({*singles, *(step for file in merged.values() for step in steps_of(file))})

        return _while_others_merge(read)

    def steps_with(self, column: str) -> list[int]:
        """The steps whose samples have a column, such as ``token_ids``. Raises DataError for a damaged file."""

        def read() -> list[int]:
            singles, merged = self._files()
            of_merged = (step for file in merged.values() for step in steps_with(file, column))
            return sorted({*of_merged, *(step for step, file in singles.items() if column in columns_of(file))})

        return _while_others_merge(read)

    def columns_of_step(self, step: int) -> list[str]:
        """The columns that some samples in the file of this step have; none if there are no samples of it."""

        def read() -> list[str]:
            singles, merged = self._files()
            files = [singles[step]] if step in singles else [file for steps, file in merged.items() if step in steps]
            return list(dict.fromkeys(name for file in files for name in columns_of(file)))

        return _while_others_merge(read)

    def of_step(self, step: int, columns: Collection[str] | None = None) -> pa.Table | None:
        """The samples of one step, with those of ``columns`` that it has; None if there are none.

        Nothing else is read. Raises DataError if their file is damaged.
        """

        def read() -> pa.Table | None:
            singles, merged = self._files()
            if step in singles:
                return read_file(singles[step], columns)
            # Several if `log.samples_every` was changed during the run.
            found = (read_step(file, step, columns) for steps, file in merged.items() if step in steps)
            return next((rows for rows in found if len(rows)), None)

        return _while_others_merge(read)

    def of_steps(
        self, steps: Collection[int], select: Callable[[Sequence[str]], Collection[str]]
    ) -> Iterator[tuple[int, pa.Table]]:
        """As `of_step` for each of ``steps`` that has samples, and quicker; ``select`` says which columns are read."""
        singles, merged = _while_others_merge(self._files)
        told = set(steps).difference(singles)
        for step in sorted(set(steps).intersection(singles)):
            if (rows := self.of_step(step, select(self.columns_of_step(step)))) is not None:
                yield step, rows
        for inside, file in merged.items():
            for step, rows in read_steps(file, told.intersection(inside), select):
                told.discard(step)
                yield step, rows

    def tables(self, columns: Collection[str] | None = None) -> list[pa.Table]:
        """All samples, file by file, with those of ``columns`` that a file has. Raises DataError if one is damaged."""

        def read() -> list[pa.Table]:
            singles, merged = self._files()
            return [read_file(file, columns) for file in (*merged.values(), *singles.values())]

        return _while_others_merge(read)

    def _merge(self, steps: range) -> list[str]:
        singles, _ = self._files()
        files = {step: file for step, file in singles.items() if step in steps}
        merged = self.folder / f"steps_{steps[0]:06d}-{steps[-1]:06d}.parquet"
        with named_write_errors(merged, f"the samples of {steps_in_words([steps])}"):
            try:
                damaged = merge(files, merged)
            except DataError as error:
                return [f"{error}; they stay as they are"]
            # The files that it replaces go only when its name would survive a power cut.
            flush(self.folder)
            for file in files.values():
                if file in damaged:
                    _set_aside(file)
                else:
                    file.unlink()
        self._unflushed -= {*files.values()}
        return [f"{error}; set aside as {DAMAGED}{file.name}" for file, error in damaged.items()]

    def _split(self, merged: Path, steps: range) -> list[str]:
        """Give these steps of a merged file files of their own again, and remove it."""
        for step in steps:
            try:
                rows = read_step(merged, step)
            except DataError as error:
                _set_aside(merged)
                return [f"{error}; set aside as {DAMAGED}{merged.name}"]
            if len(rows):
                write_table(self._single(step), rows)
                flush(self._single(step))
        flush(self.folder)
        merged.unlink()
        return []

    def _files(self) -> tuple[dict[int, Path], dict[range, Path]]:
        """The files of single steps that count, and the merged ones, while another process may be merging."""
        # What is merged between the first and the second look is in the third, and what is split is in the last.
        before, merged = self._singles(), self._merged()
        singles = before | self._singles()
        replaced = [*merged]
        return {s: singles[s] for s in sorted(singles) if not any(s in steps for steps in replaced)}, merged

    def _single(self, step: int) -> Path:
        return self.folder / file_name(step)

    def _singles(self) -> dict[int, Path]:
        found = ((_SINGLE.fullmatch(file.name), file) for file in self.folder.glob("step_*.parquet"))
        return {int(match[1]): file for match, file in found if match}

    def _merged(self) -> dict[range, Path]:
        found = ((_MERGED.fullmatch(file.name), file) for file in self.folder.glob("steps_*.parquet"))
        merged = {range(int(match[1]), int(match[2]) + 1): file for match, file in found if match}
        return dict(sorted(merged.items(), key=lambda item: item[0][0]))


def _while_others_merge(read: Callable[[], Found]) -> Found:
    """What ``read`` returns; again if a file is gone that it had found, because the run has merged it meanwhile."""
    for _ in range(TRIES - 1):
        try:
            return read()
        except FileNotFoundError:
            continue
    return read()


def _set_aside(file: Path) -> None:
    """Rename a damaged file, so that it is neither read nor written over."""
    file.rename(file.with_name(f"{DAMAGED}{file.name}"))
