"""What a signal makes of a command."""

from __future__ import annotations

import signal

import pytest

from sweeps.interruption import InterruptionError, interruptible


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_are_told_in_a_line_that_says_how_to_go_on(number: signal.Signals) -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(InterruptionError) as raised, interruptible("good", "`sweeps run FILE --resume`"):
        signal.raise_signal(number)
    assert str(raised.value) == "good: interrupted; go on with `sweeps run FILE --resume`"
    assert signal.getsignal(signal.SIGTERM) is before
