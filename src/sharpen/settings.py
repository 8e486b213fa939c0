"""The base of everything a user can set."""

from pydantic import BaseModel, ConfigDict


class Settings(BaseModel):
    """Immutable; an unknown name is an error, never ignored; numbers are checked and never NaN."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, allow_inf_nan=False, validate_default=True, use_attribute_docstrings=True
    )
