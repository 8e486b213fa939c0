"""Hostile programs and forged solutions, and the harness that runs them and sees what a sandbox lets through."""

from .attack import Attack, attacks
from .check import LIMITS, PROGRAMS, BatteryReport, Finding, check_sandbox

__all__ = ["LIMITS", "PROGRAMS", "Attack", "BatteryReport", "Finding", "attacks", "check_sandbox"]
