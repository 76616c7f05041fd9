"""Asks for a C++ compiler before mmcv's build fails without one, minutes later and in many lines."""

from __future__ import annotations

import os
import shutil
import sys
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

COMPILERS = (os.environ.get("CXX", "c++"), "c++", "g++", "clang++")


class CompilerHook(BuildHookInterface[Any]):
    """Runs whenever the project is installed."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """End the build in one line if mmcv's operations could not be compiled."""
        if not any(shutil.which(name) for name in COMPILERS):
            sys.exit("palimpsest needs a C++ compiler to build mmcv: apt-get install g++, or xcode-select --install")
