"""Keeps freed memory in the process from one training step, or timed run, to the next.

By default glibc returns large blocks to the kernel, which clears them page by page on the next request: a third of a
step of a small convolutional network on two CPU cores. Blocks that are larger still are returned at once: kept, they
would fragment the free memory, and a process would grow by half. Other C libraries, and allocators that are put in
glibc's place, decide for themselves.
"""

import ctypes
from collections.abc import Callable
from functools import cache

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # parameters of mallopt, from malloc.h
NEVER = -1
MOST_KEPT = 2**25  # bytes of a block; glibc itself never keeps larger ones


@cache
def keep_freed_memory() -> None:
    """From now on blocks of up to ``MOST_KEPT`` bytes that are freed stay with the process, for those to come."""
    option = _of_libc("mallopt")
    if option is not None:
        option(MMAP_THRESHOLD, MOST_KEPT)
        option(TRIM_THRESHOLD, NEVER)


def give_back_memory() -> None:
    """What is free goes back to the kernel, once."""
    trim = _of_libc("malloc_trim")
    if trim is not None:
        trim(0)


def _of_libc(name: str) -> Callable[..., int] | None:
    """A function of the C library that this process runs with, where it has it."""
    try:
        found: Callable[..., int] = getattr(ctypes.CDLL(None), name)
    except (AttributeError, OSError, TypeError):  # TypeError: Windows has no library without a name
        return None
    return found
