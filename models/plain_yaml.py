"""YAML whose class names can be told from what YAML 1.1 makes of them."""

from __future__ import annotations

import re
from typing import Any

import yaml

_INTEGER = "tag:yaml.org,2002:int"
_AS_WRITTEN = re.compile(r"[-+]?(0|[1-9][0-9]*)")


class Respelled(int):
    """An integer that YAML reads out of what people may have meant otherwise: 010 is 8, 1:30 is 90."""

    written: str


class _Loader(yaml.SafeLoader):
    def get_single_node(self) -> Any:
        node = super().get_single_node()
        for key, value in node.value if isinstance(node, yaml.MappingNode) else ():
            if key.value != "names" or not isinstance(value, yaml.CollectionNode):
                continue
            for name in value.value if isinstance(value, yaml.SequenceNode) else [pair[1] for pair in value.value]:
                if name.tag == _INTEGER and not _AS_WRITTEN.fullmatch(name.value):
                    name.tag = "!respelled"
        return node


def _respelled(loader: _Loader, node: yaml.ScalarNode) -> Respelled:
    found = Respelled(loader.construct_yaml_int(node))
    found.written = node.value
    return found


_Loader.add_constructor("!respelled", _respelled)


def load_plain(text: str) -> Any:
    """`yaml.safe_load`, but that integers among ``names`` which are not written in decimal digits are `Respelled`."""
    return yaml.load(text, _Loader)
