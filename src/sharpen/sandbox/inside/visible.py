"""Which files of the machine programs need: Python's standard library and the C libraries it uses."""

from __future__ import annotations

import os
import sys

DEVICES = ("/dev/null", "/dev/random", "/dev/urandom")
"""Not /dev/zero: a shared mapping of it stays in memory as a whole while one page is mapped."""
_TIME_ZONES = "/usr/share/zoneinfo"
_PACKAGES = ("site-packages", "dist-packages")


def folders() -> list[str]:
    """The folders to expose, none inside another. Call it once all modules that need a C library are imported."""
    wanted = {os.path.realpath(path) for path in sys.path}
    wanted |= {os.path.dirname(os.path.realpath(path)) for path in _mapped_libraries()}
    wanted.add(os.path.realpath(_TIME_ZONES))
    kept: list[str] = []
    for folder in sorted(filter(os.path.isdir, wanted)):
        if not any(folder == above or folder.startswith(above + "/") for above in kept):
            kept.append(folder)
    return kept


def hidden(folder: str) -> list[str]:
    """The installed-package folders inside: a data set's package may contain its answers."""
    found = []
    for parent in (folder, *(entry.path for entry in os.scandir(folder) if entry.name.startswith("python"))):
        found += [path for name in _PACKAGES if os.path.isdir(path := os.path.join(parent, name))]
    return found


def readable_parts(folder: str) -> list[str]:
    """The folder, or if packages are inside, everything in it except them."""
    secret = set(hidden(folder))
    if not secret:
        return [folder]
    parts = []
    for entry in os.scandir(folder):
        if entry.path in secret or entry.is_symlink():
            continue
        if any(path.startswith(entry.path + "/") for path in secret):
            parts += readable_parts(entry.path)
        else:
            parts.append(entry.path)
    return parts


def _mapped_libraries() -> set[str]:
    with open("/proc/self/maps") as maps:
        paths = {line.split(maxsplit=5)[5].strip() for line in maps if line.count("/") and ".so" in line}
    return {path for path in paths if path.startswith("/") and os.path.exists(path)}
