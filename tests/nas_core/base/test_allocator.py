"""Memory that a step frees is there for the next one, and goes back to the kernel at the end."""

import platform
import subprocess
import sys

import pytest

from nas_core.base import allocator

USES = """
import resource
import psutil
import numpy
from nas_core.base.allocator import give_back_memory, keep_freed_memory

def faults(steps):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(steps):
        blocks = [numpy.ones(2**18, dtype="f4") for _ in range(40)]  # 40 MB
        del blocks
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

keep_freed_memory()
faults(2)
kept, held = faults(20), psutil.Process().memory_info().rss
give_back_memory()
given_back = held - psutil.Process().memory_info().rss
assert kept < 1000, kept  # 10,000 pages a step otherwise
assert given_back > 30e6, given_back
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library decides for itself")
def test_freed_memory_is_kept_for_the_next_step():
    subprocess.run([sys.executable, "-c", USES], check=True)


def test_a_library_without_these_functions_is_left_alone(monkeypatch):
    monkeypatch.setattr(allocator, "_of_libc", lambda name: None)
    allocator.keep_freed_memory.cache_clear()
    allocator.keep_freed_memory()
    allocator.give_back_memory()
    allocator.keep_freed_memory.cache_clear()
