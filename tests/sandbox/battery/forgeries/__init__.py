"""Forged solutions beyond those of the package, one file per way of testing."""

from sharpen.sandbox.battery import Attack

from . import calls, programs, tests

FORGED: tuple[Attack, ...] = (*tests.FORGED, *calls.FORGED, *programs.FORGED)
