"""YAML read strictly: a key given twice is an error, not silently the last one."""

from pathlib import Path
from typing import Any

import yaml


class _Strict(yaml.SafeLoader):
    pass


def _mapping(loader: _Strict, node: yaml.MappingNode) -> dict[Any, Any]:
    keys = [loader.construct_object(key) for key, _ in node.value if key.tag != "tag:yaml.org,2002:merge"]
    repeated = {key for key in keys if keys.count(key) > 1}
    if repeated:
        raise yaml.YAMLError(f"{node.start_mark}: keys given twice: {sorted(map(str, repeated))}")
    loader.flatten_mapping(node)
    return {
        loader.construct_object(key, deep=True): loader.construct_object(value, deep=True) for key, value in node.value
    }


_Strict.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)


def documents(path: Path) -> list[Any]:
    """Every document of the file."""
    return list(yaml.load_all(path.read_text(encoding="utf-8"), Loader=_Strict))
