"""Images that changed since networks were scored on them.

A scorer's id is computed wherever a study is read, also where its images are
not at hand, so it knows an image folder by its path. The study keeps a
fingerprint of the folder, which is compared where the images are.
"""

from pathlib import Path

from nas_core.base.errors import DataError
from nas_core.base.identity import content_id
from nas_core.study.study import Study

FINGERPRINTS = "fingerprints.json"  # scorer id -> fingerprint


def check_same_images(study: Study) -> None:
    """Keep the fingerprint of the study's image folder, or compare it with the one kept.

    Raises:
        DataError: if the images are others than those of the stored scores.
    """
    data = study.config.data
    if data.name != "folder" or data.path is None or study.config.scorer.kind == "tabular":
        return
    source = Path(data.path).expanduser()
    kept, present = study.output(FINGERPRINTS) or {}, fingerprint(source)
    if study.scorer_id not in kept:
        study.store.write_json(FINGERPRINTS, {**kept, study.scorer_id: present})
    elif kept[study.scorer_id] != present:
        raise DataError(
            str(source),
            "other files than when this study's networks were scored",
            "the same, or another root",
            f"If the scores still hold, delete {study.store.uri(FINGERPRINTS)}.",
        )


def fingerprint(source: Path) -> str:
    """Content id of the names and sizes of a folder's files."""
    files = (path for path in source.rglob("*") if path.is_file())
    return content_id({"files": sorted((str(path.relative_to(source)), path.stat().st_size) for path in files)})
