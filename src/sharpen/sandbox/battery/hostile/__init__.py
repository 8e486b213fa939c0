"""Hostile programs: each kind of harm once or a few times. ``tests/sandbox/battery`` has many more."""

from sharpen.sandbox.battery.attack import Attack, attacks

from . import kernel, limits, others, shared

HOSTILE: tuple[Attack, ...] = tuple(
    attack
    for part in (limits, others, shared, kernel)
    for group, text in part.TEXTS.items()
    for attack in attacks(group, text)
)
