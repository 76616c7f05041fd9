"""The paths that a sweep file names, from the working folder on: trials run in other folders."""

from __future__ import annotations

import os
from pathlib import Path

from trainables.files import is_web_address


def absolute(path: str | Path) -> str:
    """`path`, absolute, with the user's folder for `~`."""
    return os.path.abspath(os.path.expanduser(path))


def weights_of(origin: str | None) -> str | None:
    """Where weights come from: an absolute path, or the URL that was given; None if none are."""
    return absolute(origin) if origin and not is_web_address(origin) else origin


def missing_file(origin: str | None) -> str | None:
    """What is wrong with weights that are to come from a file, or None."""
    path = weights_of(origin)
    if not path or is_web_address(path) or os.path.isfile(path):
        return None
    return f"there is no file {path}"
