"""Keeps freed CPU memory between steps instead of returning it to the kernel."""

import ctypes
import functools
import sys

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX, _ARENA_MAX = -1, -2, -4, -8
_MiB = 2**20


@functools.cache
def keep_freed_memory() -> bool:
    """Make glibc's allocator serve all allocations from a single heap that never shrinks; False without glibc.

    By default glibc maps and unmaps blocks of more than 32 MiB (at first also smaller ones) at every use, so every step
    page-faults on freshly zeroed memory. Call this before starting threads: existing threads keep their heaps.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    settings = ((_ARENA_MAX, 1), (_MMAP_MAX, 0), (_TRIM_THRESHOLD, -1), (_TOP_PAD, 64 * _MiB))
    return all(mallopt(name, value) == 1 for name, value in settings)
