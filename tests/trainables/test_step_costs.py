"""What a step costs is the step's alone."""

from __future__ import annotations

import os

import numpy as np
import pytest

from trainables.step_costs import forget_peak_memory, peak_memory_mb


@pytest.mark.skipif(not os.access("/proc/self/clear_refs", os.W_OK), reason="the kernel lets nobody forget")
def test_memory_that_was_given_back_before_is_no_part_of_the_peak() -> None:
    forget_peak_memory()
    before = peak_memory_mb("cpu")
    np.ones(32 << 20)  # 256 MiB
    assert peak_memory_mb("cpu") > before + 200
    forget_peak_memory()
    assert peak_memory_mb("cpu") < before + 100
