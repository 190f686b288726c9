"""What scores depend on and no id says: the bytes of a table, the files of an image folder.

Ids are computed wherever a study is read, also where its data are not at hand.
The study keeps a fingerprint of them instead, which is compared where they are.
"""

import hashlib
from pathlib import Path

from nas_core.config import StudyConfig
from nas_core.errors import DataError
from nas_core.identity import content_id
from nas_core.study import Study

FINGERPRINTS = "fingerprints.json"  # scorer id -> fingerprint


def check_same_inputs(study: Study) -> None:
    """Keep the fingerprint of what the scorer rates networks by, or compare it with the one kept.

    Raises:
        DataError: if the table or the images are others than those of the stored scores.
    """
    source = _source(study.config)
    if source is None:
        return
    kept, present = study.output(FINGERPRINTS) or {}, fingerprint(source)
    if study.scorer_id not in kept:
        study.store.write_json(FINGERPRINTS, {**kept, study.scorer_id: present})
    elif kept[study.scorer_id] != present:
        raise DataError(
            str(source),
            "other content than when this study's networks were scored",
            "the same content, or another root",
            f"If the scores still hold, delete {study.store.uri(FINGERPRINTS)}.",
        )


def _source(config: StudyConfig) -> Path | None:
    if config.scorer.kind == "tabular":
        return Path(config.scorer.path).expanduser()
    return Path(config.data.path).expanduser() if config.data.name == "folder" and config.data.path else None


def fingerprint(source: Path) -> str:
    """Of a file its bytes, of a folder the names and sizes of its files."""
    if source.is_file():
        with source.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()[:32]
    files = (path for path in source.rglob("*") if path.is_file())
    return content_id({"files": sorted((str(path.relative_to(source)), path.stat().st_size) for path in files)})
