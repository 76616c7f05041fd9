"""Ctrl-C, SIGTERM and `ray job stop`: what there is is saved, and how to go on is said."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from trainables.errors import PalimpsestError


class InterruptionError(PalimpsestError):
    """A command ended before its work did, by a person's wish."""


@contextmanager
def interruptible(subject: str, again: str) -> Iterator[None]:
    """SIGTERM is taken like Ctrl-C, which Tune answers by saving its state. To be entered once Ray is connected, which
    takes SIGTERM for itself.

    Args:
        subject: what is interrupted.
        again: the command that goes on.

    Raises:
        InterruptionError: in place of `KeyboardInterrupt`.
    """
    before = signal.getsignal(signal.SIGTERM)
    if main := threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, _like_ctrl_c)
    try:
        yield
    except KeyboardInterrupt:
        raise InterruptionError(subject, [f"interrupted; go on with `{again}`"]) from None
    finally:
        if main:
            signal.signal(signal.SIGTERM, before)


def _like_ctrl_c(number: int, frame: FrameType | None) -> None:
    handler = signal.getsignal(signal.SIGINT)
    if not callable(handler):  # a shell that starts a command with `&` has it ignore Ctrl-C
        raise KeyboardInterrupt
    handler(signal.SIGINT, frame)
