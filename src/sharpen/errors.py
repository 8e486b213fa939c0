"""The errors that a user can act on. Any other exception is a bug in sharpen and keeps its traceback."""

from sharpen.system.printable import printable


class SharpenError(Exception):
    """Some input cannot be used; the message names it and the remedy.

    As text it is `printable`: it may quote what a model, a reward or a data set wrote.
    """

    def __str__(self) -> str:
        return printable(super().__str__())


class RecipeError(SharpenError):
    """A setting is unknown, has the wrong type, or contradicts another."""


class DataError(SharpenError):
    """A file, row or column of the data cannot be used."""


class DrawnRowError(DataError):
    """A row that was not read before the first step, because there are so many, cannot be used."""


class ModelError(SharpenError):
    """A model folder, its tokenizer or its configuration cannot be used."""


class RewardError(SharpenError):
    """A reward raised, returned something other than a finite number, or cannot be called with these rows."""


class NonFiniteError(SharpenError):
    """A loss, gradient or model output is NaN or infinite; ``step`` is the step in which it was found."""

    def __init__(self, message: str, step: int | None = None) -> None:
        super().__init__(message)
        self.step = step


class StaleError(SharpenError):
    """An older version of the policy drew a batch that would be trained on as if the present one had drawn it."""


class CheckpointError(SharpenError):
    """A checkpoint is missing, incomplete or damaged, or belongs to another run."""


class ChangedError(SharpenError):
    """A run would be resumed with something else than it was started with; these changes can be accepted."""


class RunInUseError(SharpenError):
    """Another process, or another thread of this one, is writing the run."""


class DiskError(SharpenError):
    """A file cannot be written: the disk is full, read-only or failing, or the folder belongs to somebody else."""
