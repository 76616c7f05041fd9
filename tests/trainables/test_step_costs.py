"""What a step costs is the step's alone."""

from __future__ import annotations

import os
from mmap import MAP_ANONYMOUS, MAP_PRIVATE, mmap

import pytest

from trainables.step_costs import forget_peak_memory, peak_memory_mb


@pytest.mark.skipif(not os.access("/proc/self/clear_refs", os.W_OK), reason="the kernel lets nobody forget")
def test_memory_that_was_given_back_before_is_no_part_of_the_peak() -> None:
    forget_peak_memory()
    before = peak_memory_mb("cpu")
    # Not from malloc, which may keep freed memory for its process: protobuf trims the heap, and the holes serve again.
    with mmap(-1, 256 << 20, MAP_PRIVATE | MAP_ANONYMOUS) as memory:
        memory[:: 1 << 12] = bytes(1 << 16)  # a byte of each page
    assert peak_memory_mb("cpu") > before + 200
    forget_peak_memory()
    assert peak_memory_mb("cpu") < before + 100
