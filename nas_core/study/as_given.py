"""How good a trained model was as it was given, beside what became of it. No torch at import."""

from typing import Any

from nas_core.base.errors import NasError
from nas_core.base.identity import content_id
from nas_core.families.trained_model import TrainedModel
from nas_core.study.brought import family_of, trained_metric, workload_of
from nas_core.study.study import Study

GIVEN = "given.json"  # in a study's store


def as_given(study: Study) -> float | None:
    """The study's metric of the model on the test split; None where it was not measured, or of other networks."""
    if study.config.space.kind != TrainedModel.name or not study.store.exists(GIVEN):
        return None
    kept = study.store.read_json(GIVEN)
    return float(kept["value"]) if kept.get("of") == _of(study) else None


def measure_as_given(study: Study) -> float | None:
    """As ``as_given``; measured where it is not known. None of other networks, or where model or data are gone."""
    if study.config.space.kind != TrainedModel.name:
        return None
    if (known := as_given(study)) is not None:
        return known
    from nas_core.training.loop import measure

    metric, workload = trained_metric(study.config), workload_of(study.config)
    try:
        teacher: Any = family_of(study.config, workload.sample).teacher
        splits = workload.load(study.family.sample.shape)
        value = measure(teacher, metric, splits.load_test(), splits.prepare, workload=workload)
    except NasError:
        return None
    study.store.write_json(GIVEN, {"of": _of(study), "value": value})
    return value


def _of(study: Study) -> str:
    notes = study.sources.data  # the data may be gone by now
    known = {"space": study.space.space_id, "data": notes.identity if notes is not None else {}}
    return content_id({**known, "metric": trained_metric(study.config).name})
