"""Post-train language models with reinforcement learning, on a CPU or one GPU."""

from typing import TYPE_CHECKING

from sharpen.errors import SharpenError
from sharpen.system.lazy_imports import lazily
from sharpen.system.notebook import import_tqdm

if TYPE_CHECKING:
    from sharpen.api import resume, train
    from sharpen.data.settings import DataSettings
    from sharpen.evaluation.runner import Evaluation
    from sharpen.evaluation.settings import EvaluationSettings
    from sharpen.exporting.export import export
    from sharpen.launch.evaluate import evaluate
    from sharpen.launch.handle import Run
    from sharpen.launch.load import load
    from sharpen.launch.loaded_model import Completion, LoadedModel
    from sharpen.methods import (
        CISPO,
        DAPO,
        DPO,
        GRPO,
        GSPO,
        PPO,
        RFT,
        RLOO,
        SFT,
        DrGRPO,
        Method,
        OnlineRFT,
        ProcessRewardModel,
        Reinforce,
        ReinforcePlusPlus,
        RewardModel,
    )
    from sharpen.models.settings import LoraSettings, ModelSettings
    from sharpen.rewards import (
        CallSettings,
        FunctionReward,
        Gate,
        Reward,
        StepReward,
        Verifier,
        WeightedSum,
    )
    from sharpen.rewards.code.asserts import CodeAsserts, CodeCheck
    from sharpen.rewards.code.lint import CodeLint
    from sharpen.rewards.code.verifiers import CodeCompiles, CodeTests
    from sharpen.rewards.math.verifier import Math
    from sharpen.rewards.text.json_schema import JsonSchema
    from sharpen.rewards.text.language import Language
    from sharpen.rewards.text.regex import Regex
    from sharpen.rewards.text.repetition import Repetition
    from sharpen.rewards.text.verifiers import Contains, ExactAnswer, Tags
    from sharpen.rollout.engine import Sampling
    from sharpen.rollout.settings import EngineSettings, RolloutSettings
    from sharpen.runs.loggers import MetricLogger
    from sharpen.training.settings import CheckpointSettings, LogSettings, OptimizerSettings, TrainingSettings

__version__ = "0.1.0"

__all__ = [
    "CISPO",
    "DAPO",
    "DPO",
    "GRPO",
    "GSPO",
    "PPO",
    "RFT",
    "RLOO",
    "SFT",
    "CallSettings",
    "CheckpointSettings",
    "CodeAsserts",
    "CodeCheck",
    "CodeCompiles",
    "CodeLint",
    "CodeTests",
    "Completion",
    "Contains",
    "DataSettings",
    "DrGRPO",
    "EngineSettings",
    "Evaluation",
    "EvaluationSettings",
    "ExactAnswer",
    "FunctionReward",
    "Gate",
    "JsonSchema",
    "Language",
    "LoadedModel",
    "LogSettings",
    "LoraSettings",
    "Math",
    "Method",
    "MetricLogger",
    "ModelSettings",
    "OnlineRFT",
    "OptimizerSettings",
    "ProcessRewardModel",
    "Regex",
    "Reinforce",
    "ReinforcePlusPlus",
    "Repetition",
    "Reward",
    "RewardModel",
    "RolloutSettings",
    "Run",
    "Sampling",
    "SharpenError",
    "StepReward",
    "Tags",
    "TrainingSettings",
    "Verifier",
    "WeightedSum",
    "evaluate",
    "export",
    "load",
    "resume",
    "train",
]

_HOMES = {
    "CISPO": "sharpen.methods",
    "CallSettings": "sharpen.rewards",
    "CheckpointSettings": "sharpen.training.settings",
    "CodeAsserts": "sharpen.rewards.code.asserts",
    "CodeCheck": "sharpen.rewards.code.asserts",
    "CodeCompiles": "sharpen.rewards.code.verifiers",
    "CodeLint": "sharpen.rewards.code.lint",
    "CodeTests": "sharpen.rewards.code.verifiers",
    "Completion": "sharpen.launch.loaded_model",
    "Contains": "sharpen.rewards.text.verifiers",
    "DAPO": "sharpen.methods",
    "DPO": "sharpen.methods",
    "DataSettings": "sharpen.data.settings",
    "DrGRPO": "sharpen.methods",
    "EngineSettings": "sharpen.rollout.settings",
    "Evaluation": "sharpen.evaluation.runner",
    "EvaluationSettings": "sharpen.evaluation.settings",
    "ExactAnswer": "sharpen.rewards.text.verifiers",
    "FunctionReward": "sharpen.rewards",
    "GRPO": "sharpen.methods",
    "GSPO": "sharpen.methods",
    "Gate": "sharpen.rewards",
    "JsonSchema": "sharpen.rewards.text.json_schema",
    "Language": "sharpen.rewards.text.language",
    "LoadedModel": "sharpen.launch.loaded_model",
    "LogSettings": "sharpen.training.settings",
    "LoraSettings": "sharpen.models.settings",
    "Math": "sharpen.rewards.math.verifier",
    "Method": "sharpen.methods",
    "MetricLogger": "sharpen.runs.loggers",
    "ModelSettings": "sharpen.models.settings",
    "OnlineRFT": "sharpen.methods",
    "OptimizerSettings": "sharpen.training.settings",
    "PPO": "sharpen.methods",
    "ProcessRewardModel": "sharpen.methods",
    "RFT": "sharpen.methods",
    "RLOO": "sharpen.methods",
    "Regex": "sharpen.rewards.text.regex",
    "Reinforce": "sharpen.methods",
    "ReinforcePlusPlus": "sharpen.methods",
    "Repetition": "sharpen.rewards.text.repetition",
    "Reward": "sharpen.rewards",
    "RewardModel": "sharpen.methods",
    "RolloutSettings": "sharpen.rollout.settings",
    "Run": "sharpen.launch.handle",
    "SFT": "sharpen.methods",
    "Sampling": "sharpen.rollout.engine",
    "StepReward": "sharpen.rewards",
    "Tags": "sharpen.rewards.text.verifiers",
    "TrainingSettings": "sharpen.training.settings",
    "Verifier": "sharpen.rewards",
    "WeightedSum": "sharpen.rewards",
    "evaluate": "sharpen.launch.evaluate",
    "export": "sharpen.exporting.export",
    "load": "sharpen.launch.load",
    "resume": "sharpen.api",
    "train": "sharpen.api",
}

__getattr__ = lazily(__name__, _HOMES)

import_tqdm()


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
