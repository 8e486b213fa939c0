"""Rewards: functions, verifiers, their sum, and the registry of names."""

from sharpen.rewards.combine import WeightedSum, check_failures
from sharpen.rewards.function import FunctionReward
from sharpen.rewards.registry import RewardSpec, describe_rewards, resolve_reward
from sharpen.rewards.reward import Reward
from sharpen.rewards.verifier import Verifier

__all__ = [
    "FunctionReward",
    "Reward",
    "RewardSpec",
    "Verifier",
    "WeightedSum",
    "check_failures",
    "describe_rewards",
    "resolve_reward",
]
