"""The files of a shrunk model, which lie beside its study: whether they are still of the network it chose. No torch."""

import shlex
from pathlib import Path
from typing import Any

from nas_core.study.stages import INSIDE
from nas_core.study.study import Study
from nas_core.training.handed_over import hash_in


def of_another(study: Study) -> str:
    """What to do where the files beside the study are not of the network that it chose and trained last; else ""."""
    inside, training = Path(study.store.root), study.current("train")
    if not study.store.is_local or inside.name != INSIDE or training is None:
        return ""
    winner: dict[str, Any] = next((row for row in training["networks"] if row["role"] == "winner"), {})
    there, own = hash_in(inside.parent), winner.get("sha256", {}).get(winner.get("weights_path"))
    if None in (there, own) or there == own:
        return ""
    command = shlex.join(["mathnas", "export", str(inside), "--to", str(inside.parent)])
    return f"the files in {inside.parent} are of another network than was chosen since: {command}"
