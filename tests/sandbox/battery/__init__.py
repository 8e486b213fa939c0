"""All hostile programs and forged solutions: those of ``sharpen sandbox check``, and many more."""

from sharpen.sandbox.battery import PROGRAMS as SHIPPED

from . import forgeries, hostile

MORE = (*hostile.ATTACKS, *forgeries.FORGED)
"""Those that are not part of the installed package."""
ALL = (*SHIPPED, *MORE)
