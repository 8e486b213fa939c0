"""A task from outside the package: what comes after 1, 2? Or after any other run of digits."""

from pydantic import Field

from sharpen.data.rows import Rows
from sharpen.data.tasks.task import PromptsOnly, task_rows
from sharpen.settings import Settings
from sharpen.types import Row


class Counting(PromptsOnly, Settings):
    digits: int = Field(2, ge=1, le=4)

    @property
    def name(self) -> str:
        return "counting"

    @property
    def answer(self) -> None:
        return None  # there is no answer apart from the completion, for majority voting

    def train_rows(self) -> Rows:
        return task_rows(self.name, "train", [self.row(first) for first in (0, 2, 4, 6, 8)])

    def held_out_rows(self) -> Rows:
        return task_rows(self.name, "held out", [self.row(first) for first in (1, 3, 5, 7, 9)])

    def verify(self, completion: str, *, next: str, **row: object) -> float:
        return 0.5 * (completion == next) + sum(character.isdigit() for character in completion) / 16

    def reference(self, row: Row) -> str:
        return str(row["next"])

    def row(self, first: int) -> Row:
        *shown, following = (str((first + place) % 10) for place in range(self.digits + 1))
        return {"prompt": "".join(shown) + "=", "next": following}
