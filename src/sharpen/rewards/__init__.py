"""Rewards: functions, verifiers, trained models, their sum, and the registry of names."""

from sharpen.rewards.calls import CallSettings
from sharpen.rewards.checking import Report, check
from sharpen.rewards.combine import WeightedSum
from sharpen.rewards.function import FunctionReward
from sharpen.rewards.gate import Gate
from sharpen.rewards.model import ModelReward, ProcessModelReward
from sharpen.rewards.registry import RewardSpec, describe_rewards, resolve_reward
from sharpen.rewards.reward import Reward
from sharpen.rewards.scoring import check_failures, score_groups
from sharpen.rewards.steps import StepReward
from sharpen.rewards.verifier import Verifier

__all__ = [
    "CallSettings",
    "FunctionReward",
    "Gate",
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
    "score_groups",
]
