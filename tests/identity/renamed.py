"""What has another name than at `BASE`: old name → new name. Emptied when the base moves on."""

from __future__ import annotations

BASE = "3fe0a2a"
"""The commit that is compared with where none is given."""

SETTINGS: dict[str, str] = {"rollout.max_sequences": "rollout.engine.max_sequences"}
"""Settings of a recipe, such as ``training.steps``, or a section as a whole."""

FILES: dict[str, str] = {}
"""Files of a run, relative to its folder."""

METRICS: dict[str, str] = {}
"""Names in ``metrics.jsonl``."""

COLUMNS: dict[str, str] = {}
"""Columns of samples and fields of kept completions."""

STATE: dict[str, str] = {"versions": "updates", "levels": "coefficients"}
"""Entries of a checkpoint's ``state.json``, with all that is below them."""

RECOMPUTED: tuple[str, ...] = (
    *("fingerprint/reference", "fingerprint/bases", "fingerprint/frozen", "fingerprint/columns"),
    *("fingerprint/recipe", "fingerprint/code", "fingerprint/versions", "fingerprint/scorers"),
)
"""Entries of ``state.json``, with all below them, that are now computed in another way: they are not compared."""

ADDED: tuple[str, ...] = ("held_out/",)
"""How the names of a run's files begin that there were not at `BASE`. They are not compared."""

TENSORS: dict[str, str] = {}
"""Tensors of weights and optimizer state."""

REDEFINED: frozenset[str] = frozenset({"policy_version"})
"""Columns that mean something else than at `BASE`, and are not compared: a version was an optimizer step, and is a
training step."""
