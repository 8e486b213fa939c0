"""Hostile programs and forged solutions, and the harness that runs them and sees what a sandbox lets through."""

from .attack import Attack, attacks
from .bystander import Bystander, Felt
from .check import LIMITS, PROGRAMS, BatteryReport, Finding, check_sandbox

__all__ = ["LIMITS", "PROGRAMS", "Attack", "BatteryReport", "Bystander", "Felt", "Finding", "attacks", "check_sandbox"]
