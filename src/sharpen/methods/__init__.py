"""All methods by name. Each is one sentence: source × reward × advantage × loss."""

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

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
from sharpen.settings import explain
from sharpen.suggest import did_you_mean

METHODS: dict[str, type[Method]] = {
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
}


def resolve_method(spec: Method | str | Mapping[str, Any]) -> Method:
    """A method from its name, or from a mapping with its ``name`` and settings.

    Raises:
        ValueError: an unknown name or setting, with the nearest known one.
    """
    if isinstance(spec, Method):
        return spec
    if not isinstance(spec, str | Mapping):
        raise ValueError(
            f"a method is a name, a mapping with a `name` or, in Python, an object such as GRPO(), not {spec}"
        )
    settings = {"name": spec} if isinstance(spec, str) else dict(spec)
    name = settings.pop("name", None)
    if not isinstance(name, str) or name not in METHODS:
        raise ValueError(f"unknown method `{name}`.{did_you_mean(str(name), METHODS)} Known: {', '.join(METHODS)}")
    method = METHODS[name]
    try:
        return method(**settings)
    except ValidationError as error:
        raise ValueError(f"method {name}: {'; '.join(explain(error, method))}") from error


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
]
