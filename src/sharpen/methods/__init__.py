"""All methods by name. Each is one sentence: source × reward × advantage × loss."""

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from sharpen.in_memory import IN_MEMORY, fields_of, saved
from sharpen.methods.cispo import CISPO
from sharpen.methods.dapo import DAPO
from sharpen.methods.dpo import DPO
from sharpen.methods.dr_grpo import DrGRPO
from sharpen.methods.grpo import GRPO
from sharpen.methods.gspo import GSPO
from sharpen.methods.method import LossTerms, Method, Mixed, Objective, Role, UnifiedView
from sharpen.methods.ppo import PPO
from sharpen.methods.reinforce import RLOO, Reinforce, ReinforcePlusPlus
from sharpen.methods.reward_model import ProcessRewardModel, RewardModel
from sharpen.methods.rft import RFT, OnlineRFT
from sharpen.methods.sft import SFT
from sharpen.registry import Registry
from sharpen.settings import explain
from sharpen.system.shown import shown

METHODS: Registry[type[Method]] = Registry(
    "method",
    {
        method.name: method
        for method in (
            SFT,
            RFT,
            OnlineRFT,
            RewardModel,
            ProcessRewardModel,
            DPO,
            Reinforce,
            RLOO,
            ReinforcePlusPlus,
            PPO,
            GRPO,
            DrGRPO,
            DAPO,
            GSPO,
            CISPO,
        )
    },
    error=ValueError,
)


def resolve_method(spec: Method | type[Method] | str | Mapping[str, Any]) -> Method:
    """A method from its name, or from a mapping with its ``name`` and settings; in Python also a method or its class.

    The name is one of `METHODS`, or that of a class of your own, as ``module:Name`` or ``path/to/file.py:Name``.

    Raises:
        ValueError: an unknown name or setting, with the nearest known one.
    """
    if isinstance(spec, Method):
        _check_name(type(spec))
        return spec
    settings = dict(spec) if isinstance(spec, Mapping) else {"name": spec}
    name = settings.pop("name", None)
    if name == IN_MEMORY:
        raise ValueError("the method of this recipe was given in Python and can only be used from there")
    method = METHODS.find(name) if isinstance(name, str) else name
    if not isinstance(method, type) or not issubclass(method, Method):
        raise ValueError(
            "a method is a name, a mapping with a `name` or, in Python, a class such as GRPO or an object such as "
            f"GRPO(), not {shown(spec)}"
        )
    called = method.name if method in METHODS.values() else method.__name__
    _check_name(method)
    try:
        return method(**settings)
    except ValidationError as error:
        raise ValueError(f"method {called}: {'; '.join(explain(error, method))}") from error
    # Of a class of a user's own that lacks members.
    except TypeError as error:
        raise ValueError(f"method {called}: {error}") from error


def _check_name(method: type[Method]) -> None:
    """Raises ValueError for a user's class that has the name of a method of ours, which a recipe would take it for."""
    if method not in METHODS.values() and method.name in METHODS:
        raise ValueError(f"method {method.__name__}: give the class a `name` of its own, not {method.name!r}")


def saved_method(method: Method) -> dict[str, Any]:
    """What `resolve_method` makes an equal method of; named `IN_MEMORY` if there is no such thing."""
    fields = fields_of(method)
    if fields is None or "name" in fields:
        written = {key: getattr(method, key) for key, field in type(method).model_fields.items() if not field.exclude}
        return {**saved(written), "name": IN_MEMORY}
    return {"name": METHODS.name_of(type(method)) or IN_MEMORY, **fields}


__all__ = [
    "CISPO",
    "DAPO",
    "DPO",
    "GRPO",
    "GSPO",
    "METHODS",
    "PPO",
    "RFT",
    "RLOO",
    "SFT",
    "DrGRPO",
    "LossTerms",
    "Method",
    "Mixed",
    "Objective",
    "OnlineRFT",
    "ProcessRewardModel",
    "Reinforce",
    "ReinforcePlusPlus",
    "RewardModel",
    "Role",
    "UnifiedView",
    "resolve_method",
    "saved_method",
]
