"""A logger from outside the package: one line of CSV for each step."""

from collections.abc import Mapping
from pathlib import Path

from sharpen.runs.loggers import LoggedRun


class CsvLogger:
    def __init__(self, run: LoggedRun, columns: list[str]) -> None:
        self.columns, self.file = columns, Path(run.folder, "log.csv")

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        with self.file.open("a") as file:
            print(step, *(metrics.get(column) for column in self.columns), sep=",", file=file)

    def close(self) -> None: ...
