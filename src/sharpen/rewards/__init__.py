"""Rewards: functions, verifiers, trained models, their sum, and the registry of names."""

from sharpen.rewards.checking import Report, check
from sharpen.rewards.combine import WeightedSum, check_failures
from sharpen.rewards.function import FunctionReward
from sharpen.rewards.model import ModelReward, ProcessModelReward
from sharpen.rewards.registry import RewardSpec, describe_rewards, resolve_reward
from sharpen.rewards.reward import Reward
from sharpen.rewards.steps import StepReward
from sharpen.rewards.verifier import Verifier

__all__ = [
    "FunctionReward",
    "ModelReward",
    "ProcessModelReward",
    "Report",
    "Reward",
    "RewardSpec",
    "StepReward",
    "Verifier",
    "WeightedSum",
    "check",
    "check_failures",
    "describe_rewards",
    "resolve_reward",
]
