"""How good a trained model was as it was given, beside what became of it. No torch at import."""

from collections.abc import Mapping
from typing import Any

from nas_core.base.errors import NasError
from nas_core.base.identity import content_id
from nas_core.families.trained_model import TrainedModel
from nas_core.study.brought import family_of, trained_metric, workload_of
from nas_core.study.study import Study

GIVEN = "given.json"  # in a study's store


def as_given(study: Study) -> Mapping[str, float]:
    """The model's metrics on the test split, by name; none where they were not measured, or of other networks.

    Earlier versions measured the study's own metric only.
    """
    if study.config.space.kind != TrainedModel.name or not study.store.exists(GIVEN):
        return {}
    kept = study.store.read_json(GIVEN)
    if kept.get("of") != _of(study):
        return {}
    metrics: Mapping[str, float] = kept.get("metrics") or {trained_metric(study.config).name: kept["value"]}
    return metrics


def measure_as_given(study: Study) -> Mapping[str, float]:
    """As ``as_given``; measured where it is not known. None of other networks, or where model or data are gone."""
    if study.config.space.kind != TrainedModel.name:
        return {}
    if known := as_given(study):
        return known
    from nas_core.training.loop import measure_all

    workload = workload_of(study.config)
    try:
        teacher: Any = family_of(study.config, workload.sample).teacher
        splits = workload.load(study.family.sample.shape)
        metrics = measure_all(teacher, workload.metrics, splits.load_test(), splits.prepare, workload=workload)
    except NasError:
        return {}
    study.store.write_json(GIVEN, {"of": _of(study), "metrics": metrics})
    return metrics


def _of(study: Study) -> str:
    notes = study.sources.data  # the data may be gone by now
    known = {"space": study.space.space_id, "data": notes.identity if notes is not None else {}}
    return content_id({**known, "metric": trained_metric(study.config).name})
