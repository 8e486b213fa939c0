"""Hostile programs beyond those of the package, one file per group."""

from sharpen.sandbox.battery import Attack

from . import disk, harness, kernel, memory, network, processes, reading, running, shared, signals, writing

ATTACKS: tuple[Attack, ...] = tuple(
    attack
    for part in (processes, memory, running, disk, reading, writing, network, signals, shared, kernel, harness)
    for attack in part.ATTACKS
)
