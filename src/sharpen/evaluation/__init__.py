"""Measurements that say whether a model got better."""

from sharpen.evaluation.estimators import Estimate, bootstrap_interval, majority_at_k, pass_at_k
from sharpen.evaluation.runner import Evaluation, evaluate

__all__ = ["Estimate", "Evaluation", "bootstrap_interval", "evaluate", "majority_at_k", "pass_at_k"]
