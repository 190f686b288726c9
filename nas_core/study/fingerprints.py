"""Data that changed since networks were scored on them.

A scorer's id is computed wherever a study is read, also where its data are not
at hand, so it knows a folder of images by its path. The study keeps a
fingerprint of the folder, which is compared where the images are.
"""

from nas_core.base.errors import DataError
from nas_core.study.study import Study
from nas_core.workloads import build_workload

FINGERPRINTS = "fingerprints.json"  # scorer id -> fingerprint


def check_same_data(study: Study) -> None:
    """Keep the fingerprint of the study's data, or compare it with the one kept.

    Raises:
        DataError: if the data are others than those of the stored scores.
    """
    if not study.scorer.needs_data:
        return
    workload = build_workload(study.config.data)
    present = workload.fingerprint()
    if not present:
        return
    kept = study.output(FINGERPRINTS) or {}
    if study.scorer_id not in kept:
        study.store.write_json(FINGERPRINTS, {**kept, study.scorer_id: present})
    elif kept[study.scorer_id] != present:
        raise DataError(
            getattr(workload.settings, "path", None) or f"data: {workload.name}",
            "other files than when this study's networks were scored",
            "the same, or another root",
            f"If the scores still hold, delete {study.store.uri(FINGERPRINTS)}.",
        )
