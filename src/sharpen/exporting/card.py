"""The model card of a run: what was trained, from what, on what, how, and how well it does."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from sharpen import __version__
from sharpen.data.rows import read_rows
from sharpen.describe import about
from sharpen.errors import SharpenError
from sharpen.evaluation.estimators import Estimate
from sharpen.exporting.origin import Origin
from sharpen.in_memory import IN_MEMORY
from sharpen.methods import METHODS
from sharpen.recipe.loading import read_tree
from sharpen.report.measured import before_and_after
from sharpen.report.table import format_estimate, plain_measures
from sharpen.runs.checkpoint_check import is_checkpoint, read_manifest
from sharpen.runs.folder import RunFolder

UNKNOWN = "not known"


def model_card(origin: Origin, title: str, checks: tuple[str, ...] = ()) -> str:
    """The card as Markdown with YAML front matter. Whatever the run's files do not say is called not known."""
    tree = {} if origin.run is None else read_tree(origin.run.recipe)
    method = tree.get("method")
    method_name = str(method["name"]) if isinstance(method, Mapping) and "name" in method else UNKNOWN
    sources = list(_sources(tree))
    base, base_id = _base_names(origin)
    license_name = _license(origin.base)
    tags = ["sharpen", *([method_name] if method_name in METHODS else [])]
    data_sets = sorted({source for _, source in sources if _is_hub_id(source)})
    front = {
        **({"base_model": base_id} if base_id else {}),
        **({"datasets": data_sets} if data_sets else {}),
        "library_name": "transformers",
        **({"license": license_name} if license_name else {}),
        "tags": tags,
    }
    parts = [
        f"---\n{yaml.safe_dump(front, sort_keys=False, allow_unicode=True)}---\n",
        f"# {title}\n",
        f"Trained with sharpen {__version__} from {base}.",
        f"License: {license_name or UNKNOWN}.\n",
        "## Data\n",
        *(_data_line(role, source) for role, source in sources),
        *([] if sources else [f"- {UNKNOWN}"]),
        "\n## Method\n",
        _method_line(method_name),
        "\n## Measures\n",
        *_measures(origin),
        "\n## How to load it\n",
        _loading(origin),
        *(["\n## Checks of this export\n", *(f"- {line}" for line in checks)] if checks else []),
        "\n## Recipe\n",
        "Every setting of the run:\n" if tree else f"{UNKNOWN}: this is no checkpoint of a run.\n",
        *([f"```yaml\n{yaml.safe_dump(_public(tree), sort_keys=False, allow_unicode=True)}```"] if tree else []),
    ]
    return "\n".join(parts) + "\n"


def _base_names(origin: Origin) -> tuple[str, str | None]:
    """What the base is called in the text, and its hub id if it has one."""
    if origin.base is None:
        return f"a model that is {UNKNOWN}", None
    folder = Path(origin.base).expanduser()
    if folder.is_absolute() or folder.is_dir() or origin.base_problem is not None:
        return f"the model in a folder called {folder.name}; its id on the hub is {UNKNOWN}", None
    return f"[{origin.base}](https://huggingface.co/{origin.base})", origin.base


def _license(base: str | None) -> str | None:
    """As the base's own card states it, where that lies beside the model."""
    card = None if base is None else Path(base).expanduser() / "README.md"
    if card is None or not card.is_file():
        return None
    front = re.match(r"---\n(.*?)\n---", card.read_text(encoding="utf-8", errors="replace"), re.DOTALL)
    try:
        told = yaml.safe_load(front[1]) if front else None
    except yaml.YAMLError:
        # Somebody else's card: without front matter that can be read, the license is not known.
        return None
    found = told.get("license") if isinstance(told, Mapping) else None
    return found if isinstance(found, str) else None


def _sources(tree: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """The rows that the recipe names, with what they are for."""
    data = tree.get("data") or {}
    parts = {"": data, **(data.get("sources") or {})}
    for name, part in parts.items():
        for role in ("task", "train", "demonstrations", "mixed", "held_out"):
            if (source := part.get(role)) is not None:
                yield (f"{name}/{role}" if name else role), source


def _is_hub_id(source: Any) -> bool:
    return isinstance(source, str) and bool(re.fullmatch(r"[\w.-]+/[\w.-]+", source)) and not _is_file(source)


def _is_file(source: str) -> bool:
    return Path(source).expanduser().exists() or Path(source).suffix in (".jsonl", ".json", ".parquet", ".csv")


def _data_line(role: str, source: Any) -> str:
    if IN_MEMORY in json.dumps(source, default=str):
        return f"- {role}: rows given in Python; how many is {UNKNOWN}"
    if not isinstance(source, str) or role.endswith("task"):
        return f"- {role}: {json.dumps(source, default=str)}"
    if not _is_file(source):
        return f"- {role}: `{source}`; how many rows is {UNKNOWN}"
    try:
        rows = f"{len(read_rows(source)):,} rows, as the file is now"
    except (SharpenError, OSError):
        # The file may be gone since the run; the card says so.
        rows = f"how many rows is {UNKNOWN}, the file cannot be read any more"
    return f"- {role}: `{Path(source).name}`; {rows}"


def _method_line(name: str) -> str:
    method = METHODS.get(name)
    if method is None:
        return f"`{name}`, a method of its own."
    view = method.unified_view
    title = about(method).splitlines()[0].rstrip(".")
    return f"{title} (`{name}`): {view.source}; {view.reward}; advantage: {view.advantage}; {view.loss}. {view.paper}."


def _measures(origin: Origin) -> list[str]:
    """Held-out measures of the first evaluation and of the last one up to the exported step."""
    checkpoint = Path(origin.path)
    if origin.run is None or not is_checkpoint(checkpoint) or not (found := origin.run.read_metrics()):
        return [f"{UNKNOWN}: there are no metrics."]
    step = read_manifest(checkpoint).step
    rows = [row for row in found if row["step"] <= step]
    before, after = before_and_after(rows)
    if not after.measures:
        return [f"The model of step {step}. It was not measured on held-out data."]
    plain = plain_measures(after.measures)

    def shown(found: Mapping[str, Estimate], name: str) -> str:
        return format_estimate(found.get(name), name not in plain).replace("\\[", "[")

    note = "" if after.step == step else f" The last evaluation before it was that of step {after.step}."
    return [
        f"The model of step {step}.{note} On held-out data, with 95 % intervals over prompts:\n",
        f"| measure | step {before.step} | step {after.step} |",
        "|---|---|---|",
        *(f"| {name} | {shown(before.measures, name)} | {shown(after.measures, name)} |" for name in after.measures),
    ]


def _loading(origin: Origin) -> str:
    auto = {
        None: "AutoModelForCausalLM",
        "sequence": "AutoModelForSequenceClassification",
        "token": "AutoModelForTokenClassification",
    }[origin.kind]
    return (
        "```python\n"
        f"from transformers import {auto}, AutoTokenizer\n"
        f'model = {auto}.from_pretrained("FOLDER")\n'
        'tokenizer = AutoTokenizer.from_pretrained("FOLDER")\n'
        "```"
    )


def _public(value: Any) -> Any:
    """The recipe with paths out of its own folder cut to their last part: those of one machine tell others nothing."""
    if isinstance(value, Mapping):
        return {key: _public(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_public(inner) for inner in value]
    if isinstance(value, str) and value.startswith(("/", "~", "../")):
        return Path(value).name
    return value


def run_name(run: RunFolder) -> str:
    return run.path.resolve().name
