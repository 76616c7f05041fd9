"""The YAML of sweep files: safe, and without YAML 1.1's traps."""

from __future__ import annotations

import re
from collections.abc import Hashable
from typing import Any

import yaml


def read_yaml(text: str) -> Any:
    """The content of YAML `text`; numbers such as `1e-3` are numbers.

    Raises:
        ValueError: it is no YAML, or keys are given twice; the arguments are a line each.
    """
    try:
        loader = _Loader(text)
        content = loader.get_single_data()
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ValueError(f"must be YAML, but {' '.join(str(error).split())}") from error
    if loader.repeated:
        raise ValueError(*loader.repeated)
    return content


class _Loader(yaml.SafeLoader):
    """YAML 1.1 without its two traps: `1e-3` is a text there, and of a key given twice the last one wins in silence."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.repeated: list[str] = []

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        lines: dict[str, int] = {}
        for key, _ in node.value:
            line = key.start_mark.line + 1
            if isinstance(key, yaml.ScalarNode) and key.value in lines:
                self.repeated.append(f"{key.value}: is given twice, in lines {lines[key.value]} and {line}")
            elif isinstance(key, yaml.ScalarNode):
                lines[key.value] = line
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)
