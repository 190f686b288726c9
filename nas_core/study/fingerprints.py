"""Data that changed since networks were scored on them.

What a workload's identity says of its files is part of the scorer's id; of
what it knows by a fingerprint alone, the study keeps that, and compares it
where the files are.
"""

from nas_core.base.errors import DataError
from nas_core.records.store import Store
from nas_core.study.outputs import read_output
from nas_core.workloads import Workload

FINGERPRINTS = "fingerprints.json"  # scorer id -> fingerprint


def check_same_data(workload: Workload, scorer_id: str, store: Store, *, keep: bool = True) -> None:
    """Compare the fingerprint of the scorer's data with the one kept in the store; without one, ``keep`` it.

    Raises:
        DataError: if the data are others than those of the stored scores.
    """
    present = workload.fingerprint()
    if not present:
        return
    kept = read_output(store, FINGERPRINTS) or {}
    if scorer_id not in kept:
        if keep:
            store.write_json(FINGERPRINTS, {**kept, scorer_id: present})
    elif kept[scorer_id] != present:
        raise DataError(
            getattr(workload.settings, "path", None) or f"data: {workload.name}",
            "other files than when this study's networks were scored",
            "the same, or another root",
            f"If the scores still hold, delete {store.uri(FINGERPRINTS)}.",
        )
