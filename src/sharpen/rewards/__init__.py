"""Rewards: functions, verifiers, trained models, their sum, and the registry of names."""

from typing import TYPE_CHECKING

from sharpen.system.lazy_imports import lazily

if TYPE_CHECKING:
    from sharpen.rewards.checking.checker import check
    from sharpen.rewards.checking.report import RewardReport
    from sharpen.rewards.combine import WeightedSum
    from sharpen.rewards.execution.settings import CallSettings
    from sharpen.rewards.function import FunctionReward
    from sharpen.rewards.gate import Gate
    from sharpen.rewards.kinds import REWARDS, describe_rewards
    from sharpen.rewards.models.model_reward import ModelReward, ProcessModelReward
    from sharpen.rewards.registry import RewardSpec, resolve_reward
    from sharpen.rewards.reward import Reward
    from sharpen.rewards.scoring import check_failures, score_groups
    from sharpen.rewards.steps import StepReward
    from sharpen.rewards.verifier import Verifier

__all__ = [
    "REWARDS",
    "CallSettings",
    "FunctionReward",
    "Gate",
    "ModelReward",
    "ProcessModelReward",
    "Reward",
    "RewardReport",
    "RewardSpec",
    "StepReward",
    "Verifier",
    "WeightedSum",
    "check",
    "check_failures",
    "describe_rewards",
    "resolve_reward",
    "score_groups",
]

__getattr__ = lazily(
    __name__,
    {
        "REWARDS": "sharpen.rewards.kinds",
        "CallSettings": "sharpen.rewards.execution.settings",
        "FunctionReward": "sharpen.rewards.function",
        "Gate": "sharpen.rewards.gate",
        "ModelReward": "sharpen.rewards.models.model_reward",
        "ProcessModelReward": "sharpen.rewards.models.model_reward",
        "RewardReport": "sharpen.rewards.checking.report",
        "Reward": "sharpen.rewards.reward",
        "RewardSpec": "sharpen.rewards.registry",
        "StepReward": "sharpen.rewards.steps",
        "Verifier": "sharpen.rewards.verifier",
        "WeightedSum": "sharpen.rewards.combine",
        "check": "sharpen.rewards.checking.checker",
        "check_failures": "sharpen.rewards.scoring",
        "describe_rewards": "sharpen.rewards.kinds",
        "resolve_reward": "sharpen.rewards.registry",
        "score_groups": "sharpen.rewards.scoring",
    },
)
