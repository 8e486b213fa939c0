"""What an error message suggests: the nearest known name, or what else a name could mean."""

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Literal

ELSEWHERE: Mapping[str, tuple[str, ...]] = {
    "num_generations": ("group_size",),
    "rollout_n": ("group_size",),
    "n_samples_per_prompt": ("group_size",),
    "epsilon": ("eps_low", "clip"),
    "clip_ratio": ("eps_low", "clip"),
    "clip_range": ("eps_low", "clip"),
    "cliprange": ("eps_low", "clip"),
    "clip_eps": ("eps_low", "clip"),
    "epsilon_low": ("eps_low",),
    "epsilon_high": ("eps_high",),
    "clip_ratio_low": ("eps_low",),
    "clip_ratio_high": ("eps_high",),
    "kl_coef": ("beta",),
    "init_kl_coef": ("beta",),
    "kl_loss_coef": ("beta",),
    "lr": ("learning_rate",),
    "lr_scheduler": ("schedule",),
    "lr_scheduler_type": ("schedule",),
    "max_completion_length": ("max_new_tokens",),
    "max_response_length": ("max_new_tokens",),
    "max_steps": ("steps",),
    "num_iterations": ("updates_per_rollout",),
    "ppo_epochs": ("updates_per_rollout",),
    "num_ppo_epochs": ("updates_per_rollout",),
    "ppo_mini_batch_size": ("minibatches",),
    "per_device_train_batch_size": ("prompts_per_step",),
    "train_batch_size": ("prompts_per_step",),
    "save_steps": ("every",),
    "report_to": ("loggers",),
}
"""What TRL, verl and OpenRLHF call settings, and sharpen's names."""


def did_you_mean(word: str, known: Iterable[str], prefix: str = "", cutoff: float = 0.5) -> str:
    """A sentence to append to an error message, beginning with a space; empty if no known name is near.

    ``cutoff`` is the least similarity, from 0 to 1.
    """
    names = list(known)
    # Of names with a path, `method.eps_low`, the last part is compared.
    elsewhere = [name for name in names if name.rpartition(".")[2] in ELSEWHERE.get(word, ())]
    # Swapped letters, the most common slip, are no nearer to difflib than wrong ones.
    near = elsewhere or [name for name in names if sorted(name) == sorted(word)]
    near = near or get_close_matches(word, names, n=1, cutoff=cutoff)
    return f" Did you mean `{prefix}{near[0]}`?" if near else ""


def could_be_hub_id(name: str) -> bool:
    """Whether the hub could have something of this name, ``organisation/name`` or an old ``name``: no path is one."""
    return name.count("/") <= 1 and not name.startswith((".", "/", "~"))


def folder_or_hub(name: str, kind: Literal["model", "dataset"]) -> str:
    """A sentence to append to an error about the folder ``name``: it hides what the hub may have under that name.

    Begins with a space; empty if the hub can have nothing of that name.
    """
    if not could_be_hub_id(name):
        return ""
    hiding = name if Path(name).is_dir() else Path(name).parts[0]
    option = " --repo-type dataset" if kind == "dataset" else ""
    return (
        f" If you mean a folder, write ./{name}. If you mean a {kind} on the hub, the folder {hiding} hides it: run "
        f"elsewhere, or fetch it with `hf download {name}{option} --local-dir {name}`"
    )
