"""The files of a trained model: its weights, what makes it, and what that imports of the files beside it. No torch."""

import ast
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nas_core.base.identity import content_id

SOURCE = "source"  # the folder that they are handed over in, as `rebuild` has it


def source_files(model: Mapping[str, Any]) -> dict[str, bytes]:
    """``source/NAME.py`` -> content, of what ``rebuild.made`` makes the model of; none where that is no file."""
    file = Path(model.get("name", "").rpartition(":")[0]).absolute()
    if file.suffix != ".py" or not file.is_file():
        return {}
    files = [file]
    for each in files:
        files += [other for other in _imported(each, file.parent) if other not in files]
    return {f"{SOURCE}/{each.relative_to(file.parent)}": each.read_bytes() for each in sorted(files)}


def hash_of_source(model: str) -> str:
    """Of the texts of the files that make it; "" of a model that no file makes."""
    files = source_files({"name": model})
    return content_id({name: content.decode(errors="replace") for name, content in files.items()}) if files else ""


def hash_of_weights(checkpoint: str | Path) -> str:
    """Of the whole file."""
    with open(checkpoint, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


def _imported(file: Path, folder: Path) -> list[Path]:
    """The files below the folder that a Python file imports, those of packages around them included."""
    names = list[Path]()
    try:
        parsed = ast.parse(file.read_bytes())
    except (SyntaxError, ValueError):  # what imports it copes with that
        return []
    for node in ast.walk(parsed):
        if isinstance(node, ast.Import):
            names += [folder.joinpath(*alias.name.split(".")) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            root = file.parents[node.level - 1] if node.level else folder
            module = root.joinpath(*(node.module or "").split("."))
            names += [module / alias.name for alias in node.names]
    around = {each for name in names for each in (name, *name.parents) if folder in each.parents}
    return sorted(path for each in around for path in (each.with_suffix(".py"), each / "__init__.py") if path.is_file())
