"""Rotary embeddings that depend on how long a sequence is (LongRoPE, arXiv 2402.13753).

A sequence of at most the original context rotates by the short factors, a longer one by the long factors, at every
position. transformers chooses by the largest position of a batch; here each row gets what it would get alone.

Of the other kinds, ``dynamic`` depends on the length only beyond ``max_position_embeddings``, where no row is served,
and ``default``, ``linear``, ``yarn``, ``llama3`` and ``proportional`` not at all.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn


def longrope_switch(config: Any) -> int | None:
    """The longest sequence that rotates by the short factors; None if the length makes no difference."""
    parameters = getattr(config.get_text_config(), "rope_parameters", None)
    if not isinstance(parameters, Mapping):
        return None
    # One for all layers, or one for each type of layer.
    kinds = [parameters, *(value for value in parameters.values() if isinstance(value, Mapping))]
    switches = [kind["original_max_position_embeddings"] for kind in kinds if kind.get("rope_type") == "longrope"]
    return min(switches, default=None)


@contextlib.contextmanager
def rope_by_row(model: nn.Module, length_RL: Tensor) -> Iterator[None]:
    """Rotate each token of a forward as its own sequence does, of which ``length_RL``, on the CPU, has the length."""
    switch = longrope_switch(model.config)
    long_RL = length_RL > (switch or 0)
    if switch is None or bool(long_RL.all()) or not bool(long_RL.any()):
        yield
        return

    def rotate(module: Any, given: tuple[Any, ...], named: dict[str, Any], _: object) -> tuple[Tensor, Tensor]:
        x, position_ids, *rest = given if len(given) > 1 else (*given, named["position_ids"])
        layer = {"layer_type": named["layer_type"]} if "layer_type" in named else {}
        beyond = position_ids.new_full((len(position_ids), 1), switch)
        short = module.forward(x, position_ids.clamp(max=switch - 1), *rest, **layer)
        long = module.forward(x, torch.cat([position_ids, beyond], dim=1), *rest, **layer)
        here_RL1 = long_RL[..., None].to(position_ids.device)
        cos, sin = (torch.where(here_RL1, b[:, :-1], a) for a, b in zip(short, long, strict=True))
        return cos, sin

    handles = [
        module.register_forward_hook(rotate, with_kwargs=True) for module in model.modules() if _is_longrope(module)
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _is_longrope(module: nn.Module) -> bool:
    kind = getattr(module, "rope_type", None)
    return kind == "longrope" or (isinstance(kind, Mapping) and "longrope" in kind.values())
