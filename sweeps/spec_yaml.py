"""The YAML of sweep files: safe, and without YAML 1.1's traps."""

from __future__ import annotations

import re
from collections.abc import Hashable
from itertools import chain
from typing import Any

import yaml

MAX_NODES = 20_000  # keys and values, those behind aliases counted wherever they stand


def read_yaml(text: str) -> Any:
    """The content of YAML `text`; numbers such as `1e-3` are numbers.

    Raises:
        ValueError: it is no YAML, or more than `MAX_NODES`, or keys are given twice; the arguments are a line each.
    """
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        if node is None:
            return None
        if (size := _size(node, {})) > MAX_NODES:
            raise ValueError(f"it holds {size} keys and values, more than {MAX_NODES}")
        content = loader.construct_document(node)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ValueError(f"must be YAML, but {' '.join(str(error).split())}") from error
    if loader.repeated:
        raise ValueError(*loader.repeated)
    return content


def _size(node: yaml.Node, known: dict[int, int]) -> int:
    """How many nodes there are at and below one."""
    if id(node) not in known:
        known[id(node)] = 0  # not known yet
        children = chain(*node.value) if isinstance(node, yaml.MappingNode) else node.value
        known[id(node)] = 1 + sum(_size(child, known) for child in children if isinstance(child, yaml.Node))
    elif not known[id(node)]:
        raise ValueError(f"what begins in line {node.start_mark.line + 1} holds itself")
    return known[id(node)]


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


def _whole_number(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> int:
    value: int = loader.construct_yaml_int(node)
    if abs(value) >= 2**63:
        raise ValueError(f"the number in line {node.start_mark.line + 1} has more than 64 bits")
    return value


_Loader.add_constructor("tag:yaml.org,2002:int", _whole_number)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)
