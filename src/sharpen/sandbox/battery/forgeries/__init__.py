"""Solutions that solve nothing and try to be counted as right, one file for each way of grading."""

from sharpen.sandbox.battery.attack import Attack

from . import calls, programs, tests

FORGED: tuple[Attack, ...] = (*tests.FORGED, *calls.FORGED, *programs.FORGED)
