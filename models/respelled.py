"""Class names that YAML 1.1 makes other integers of than are written."""

from __future__ import annotations

import re

import yaml

INTEGER, RESPELLED = "tag:yaml.org,2002:int", "!respelled"
_AS_WRITTEN = re.compile(r"[-+]?(0|[1-9][0-9]*)")


class Respelled(int):
    """An integer that YAML reads out of what people may have meant otherwise: 010 is 8, 1:30 is 90."""

    written: str


def mark_respelled(root: yaml.Node | None) -> None:
    """Give integers right below ``names`` that are not written in decimal digits the tag `RESPELLED`."""
    for key, value in root.value if isinstance(root, yaml.MappingNode) else ():
        if key.value != "names" or not isinstance(value, yaml.CollectionNode):
            continue
        for name in value.value if isinstance(value, yaml.SequenceNode) else [pair[1] for pair in value.value]:
            if name.tag == INTEGER and not _AS_WRITTEN.fullmatch(name.value):
                name.tag = RESPELLED
