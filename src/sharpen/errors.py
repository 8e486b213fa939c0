"""The errors a user can act on. Anything else that is raised is a bug of ours and keeps its traceback."""


class SharpenError(Exception):
    """Something the user gave cannot be used; the message names it and says what would be right."""


class RecipeError(SharpenError):
    """A setting is unknown, has the wrong type, or contradicts another."""


class DataError(SharpenError):
    """A file, row or column of the data cannot be used."""


class ModelError(SharpenError):
    """A model folder, its tokenizer or its configuration cannot be used."""


class RewardError(SharpenError):
    """A reward raised, returned something that is no finite number, or cannot be called with these rows."""


class NonFiniteError(SharpenError):
    """A loss, a gradient, or something that a model gave is NaN or infinite. ``step`` is the one that met it."""

    def __init__(self, message: str, step: int | None = None) -> None:
        super().__init__(message)
        self.step = step


class CheckpointError(SharpenError):
    """A checkpoint is missing, incomplete or damaged, or belongs to another run."""


class RunInUseError(SharpenError):
    """Another process, or another thread of this one, is writing the run."""
