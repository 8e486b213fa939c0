"""Landlock: irrevocably restricts which files a process may open."""

from __future__ import annotations

import os
from collections.abc import Iterable

from .linux import syscall

READ_FILE, READ_DIR, WRITE_FILE, TRUNCATE = 1 << 2, 1 << 3, 1 << 1, 1 << 14
_REMOVE_DIR, _REMOVE_FILE, _MAKE_DIR, _MAKE_REG, _MAKE_SYM, _REFER = 1 << 4, 1 << 5, 1 << 7, 1 << 8, 1 << 12, 1 << 13

READ = READ_FILE | READ_DIR
DEVICE = READ_FILE | WRITE_FILE
WORK = READ | WRITE_FILE | TRUNCATE | _REMOVE_DIR | _REMOVE_FILE | _MAKE_DIR | _MAKE_REG | _MAKE_SYM | _REFER

_ONLY_FOLDERS = READ_DIR | _REMOVE_DIR | _REMOVE_FILE | _MAKE_DIR | _MAKE_REG | _MAKE_SYM | _REFER
_VERSION = 1  # the flag that asks for it
_PATH_BENEATH = 1
_LOG_SAME_EXEC_OFF = 1


def version() -> int:
    """This kernel's Landlock ABI version.

    Raises:
        OSError: Landlock is missing or off.
    """
    return syscall("landlock_create_ruleset", None, 0, _VERSION)


def is_there() -> bool:
    """Whether this kernel has Landlock switched on."""
    try:
        return version() >= 1
    except OSError:
        return False


def ruleset(rules: Iterable[tuple[str, int]]) -> int:
    """Descriptor of a ruleset that refuses everything Landlock can govern except the given (path, rights).

    Files from version 1 on; TCP from 4; signals to other processes and abstract sockets from 6.
    """
    found = version()
    files = 0x1FFF | (_REFER if found >= 2 else 0) | (TRUNCATE if found >= 3 else 0) | (1 << 15 if found >= 5 else 0)
    network = 0b11 if found >= 4 else 0
    scopes = 0b11 if found >= 6 else 0
    sizes = {1: 8, 2: 8, 3: 8, 4: 16, 5: 16}
    attributes = b"".join(part.to_bytes(8, "little") for part in (files, network, scopes))[: sizes.get(found, 24)]
    rules_fd = syscall("landlock_create_ruleset", attributes, len(attributes), 0)
    for path, rights in rules:
        path_fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
        try:
            allowed = rights & files if os.path.isdir(path) else rights & files & ~_ONLY_FOLDERS
            rule = allowed.to_bytes(8, "little") + path_fd.to_bytes(4, "little")
            syscall("landlock_add_rule", rules_fd, _PATH_BENEATH, rule, 0)
        finally:
            os.close(path_fd)
    return rules_fd


def restrict(rules_fd: int) -> None:
    """Apply the ruleset to this process. Needs no_new_privs.

    From version 7 on, refusals are not written to the machine's audit log, which a program could fill.
    """
    syscall("landlock_restrict_self", rules_fd, _LOG_SAME_EXEC_OFF if version() >= 7 else 0)


def restrict_to(rules: Iterable[tuple[str, int]]) -> None:
    """Make a ruleset and apply it."""
    rules_fd = ruleset(rules)
    restrict(rules_fd)
    os.close(rules_fd)
