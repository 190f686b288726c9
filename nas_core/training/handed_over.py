"""Whose files are in a folder that was handed over: told by its ``architecture.json``. No torch."""

import json
from pathlib import Path

DESCRIPTION = "architecture.json"
HASH = "weights_sha256"  # in it


def hash_in(folder: Path) -> str | None:
    """Of the weights of the network whose files are there; None where there are none, or of earlier versions."""
    try:
        found = json.loads((folder / DESCRIPTION).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found.get(HASH) if isinstance(found, dict) else None
