"""How a reward function is called: the settings."""

from __future__ import annotations

from pydantic import Field

from sharpen.settings import Effect, Name, Seconds, Settings


class CallSettings(Settings):
    """How a reward function is called."""

    timeout_s: Seconds = 60.0
    """Time limit of one call in seconds. A call that exceeds it has failed."""
    retries: int = Field(0, ge=0, le=20)
    """Further attempts after an error that `retry_on` names."""
    backoff_s: float = Field(1.0, ge=0, le=3600)
    """Pause before the first retry in seconds; it doubles with each further retry."""
    retry_on: tuple[Name, ...] = ("ConnectionError", "TimeoutError")
    """Names of exception classes, or of their bases, that are retried. With `process` or an async function, a call
    stopped at `timeout_s` counts as a TimeoutError. Otherwise it cannot be stopped, and is not retried."""
    at_once: int | None = Field(None, ge=1, le=10_000)
    """Maximum number of concurrent calls; null: the function's attribute `at_once`, else 16 for an async function and 1
    for any other."""
    lane: Name | None = None
    """Concurrency group. Rewards of the same group never run concurrently; trained models are in the group `models`."""
    process: bool = False
    """Call the function in a separate process, which is killed when a call exceeds `timeout_s`."""

    effects = (
        Effect("backoff_s", "with retries", lambda s: s.retries > 0),
        Effect("retry_on", "with retries", lambda s: s.retries > 0),
    )
