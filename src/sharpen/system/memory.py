"""Memory of the CPU is kept between steps instead of being given back and asked for again."""

import ctypes
import functools
import sys

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX, _ARENA_MAX = -1, -2, -4, -8
_MiB = 2**20


@functools.cache
def keep_freed_memory() -> bool:
    """Tell glibc's allocator to serve every tensor from one heap that it does not shrink; False without glibc.

    By default a block of more than 32 MiB, and smaller ones at first, is mapped and unmapped at every use, so each
    step writes into pages that the kernel has to find and clear anew. Call it before threads are started: those that
    exist keep their own heaps.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    settings = ((_ARENA_MAX, 1), (_MMAP_MAX, 0), (_TRIM_THRESHOLD, -1), (_TOP_PAD, 64 * _MiB))
    return all(mallopt(name, value) == 1 for name, value in settings)
