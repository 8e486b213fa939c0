"""Hostile programs and forged solutions, to see what a sandbox lets through on the machine at hand."""

from .attack import Attack
from .check import LIMITS, BatteryReport, Finding, check_sandbox
from .forgeries import FORGED
from .hostile import ATTACKS

__all__ = ["ATTACKS", "FORGED", "LIMITS", "Attack", "BatteryReport", "Finding", "check_sandbox"]
