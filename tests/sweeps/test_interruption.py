"""What a signal makes of a command."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from sweeps.interruption import InterruptionError, interruptible


@pytest.fixture(autouse=True)
def handler_of_sigint() -> Iterator[None]:
    """Its own is put back after a test."""
    before = signal.getsignal(signal.SIGINT)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize(
    ("number", "handler"),
    [
        (signal.SIGINT, signal.default_int_handler),
        (signal.SIGTERM, signal.default_int_handler),
        (signal.SIGTERM, signal.SIG_IGN),  # as a shell has it for a command with `&`
    ],
)
def test_signals_are_told_in_a_line_that_says_how_to_go_on(
    number: signal.Signals, handler: Callable[..., Any] | signal.Handlers
) -> None:
    signal.signal(signal.SIGINT, handler)
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(InterruptionError) as raised, interruptible("good", "sweeps run good.yaml --resume"):
        signal.raise_signal(number)
    assert str(raised.value) == "good: interrupted; go on with `sweeps run good.yaml --resume`"
    assert signal.getsignal(signal.SIGTERM) is before
