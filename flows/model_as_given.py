"""What a trained model takes and gives, told by the model: channels, its inputs' preparation, its outputs' unit."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from nas_core.base.errors import NasError
from nas_core.base.yaml_text import write_yaml
from nas_core.families.family import Family
from nas_core.families.trained_model import TrainedModel
from nas_core.study.brought import family_of, workload_of
from nas_core.study.config import StudyConfig, load_config
from nas_core.workloads.metrics import Metric
from nas_core.workloads.normalisation import KNOWN, Known, Normalisation, known_normalisation
from nas_core.workloads.settings import Scale
from nas_core.workloads.workload import metric_of

if TYPE_CHECKING:
    from torch import nn

    from nas_core.workloads.settings import Preparation
    from nas_core.workloads.workload import Splits, Workload

FEW = 512  # validation examples that tell
OTHER_CHANNELS = {1: 3, 3: 1}  # gray images for a model of colour ones, and the other way round
HARDLY_BETTER = 0.9  # of the errors of always giving the most frequent class: with more a model learned little
CLOSE = 0.005  # of the metric: a preparation that is better by less is no better


def parsed(section: Mapping[str, Any], overrides: Mapping[str, str]) -> StudyConfig:
    """The study of these sections; raises ConfigError."""
    return load_config(write_yaml(section).encode(), source="mathnas shrink", overrides=overrides)


def channels_taken(section: dict[str, Any], overrides: Mapping[str, str]) -> dict[str, int]:
    """Channels of images that the model takes, where they are not those of the data: gray ones, or colour ones."""
    import tasks.worker  # noqa: F401 (knows how to fetch a model of MLflow's)

    sample = workload_of(parsed(section, overrides)).sample
    if not sample.is_image or sample.shape[0] not in OTHER_CHANNELS:
        return {}
    others = {"in_channels": OTHER_CHANNELS[sample.shape[0]]}
    changed = {**section, "space": {**section["space"], **others}}
    if (own := _error_of(section, overrides)) is None:
        return {}
    other = _error_of(changed, overrides)
    if isinstance(own, NasError) and isinstance(other, NasError):  # of its weights, whatever it takes
        raise own
    return others if other is None else {}


def _error_of(section: dict[str, Any], overrides: Mapping[str, str]) -> Exception | None:
    """Why the trained model does not run on an input of the shape that its family is made for; None if it does."""
    import torch

    family = family_of(parsed(section, overrides))
    assert isinstance(family, TrainedModel), "the study of `mathnas shrink` has a trained model"
    try:
        with torch.inference_mode():
            family.reference.trained()(torch.zeros(1, *family.sample.shape))
    except Exception as error:  # a user's own code; where nothing serves, it is said when positions are found
        return error
    return None


@dataclass(frozen=True, kw_only=True)
class Told:
    """Settings of the data with which the model does best, and its metric on validation examples then."""

    settings: Mapping[str, Any]
    metric: Metric
    value: float
    num_examples: int
    guessed: float = 0.0  # accuracy of always giving the most frequent class

    @property
    def in_words(self) -> str:
        from nas_core.report.text import format_metric

        with_ = "".join(f", data.{name}: {_plain(value)}" for name, value in self.settings.items())
        value = f"{self.metric.label} {format_metric(self.metric, self.value)}"
        text = f"the model as it is: {value} on {self.num_examples} validation examples{with_}"
        if not self.guessed or self.guessed == 1 or 1 - self.value < HARDLY_BETTER * (1 - self.guessed):
            return text
        guessed = f"hardly better than one answer for all ({format_metric(self.metric, self.guessed)})"
        return f"{text}, {guessed}: are its weights those that were trained (--checkpoint)?"


def _plain(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def trained_with(section: Mapping[str, Any], overrides: Mapping[str, str]) -> Told:
    """What the model was trained with, told by its metric on validation examples.

    That is the preparation of its inputs, and whether it gives numbers in their own unit.
    """
    import tasks.worker  # noqa: F401 (knows how to fetch a model of MLflow's)
    from nas_core.families.output_check import check_outputs

    config = parsed(section, overrides)
    family, workload = family_of(config), workload_of(config)
    asked = {name for name in type(config.data).model_fields if f"data.{name}" not in overrides}
    is_prepared = "normalise" in asked and family.sample.dtype.startswith("float")
    units = [True, False] if "standardise_targets" in asked and config.data.task == "regression" else [None]
    teacher, shape = family.teacher, family.sample.shape
    assert teacher is not None, "the family of a trained model has one"
    masks = "Classes of masks are all values that are found in them, but `data.ignore`."
    advice = masks if config.data.kind == "segmentation" else ""
    check_outputs(teacher, workload.sample, shape, config.data.kind, f"{config.space.model}: outputs", advice)
    splits = workload.load(shape)  # read once, by the data's own mean and deviation
    prepared = [(cast("Preparation", "data"), splits.prepare)]
    if is_prepared:
        prepared += [(said, known_normalisation(said, shape[0])) for said in _usual(family)]
    found, failed = list[tuple[float, Told]](), list[Exception]()
    for unit in units:
        given = {} if unit is None else {"standardise_targets": unit}
        mine = workload_of(parsed({**section, "data": {**section["data"], **given}}, overrides)) if given else workload
        for said, prepare in prepared:
            known = {"normalise": said if isinstance(said, str) else said.model_dump(mode="json")}
            try:
                found.append(_rated(teacher, mine, splits, prepare, {**given, **(known if is_prepared else {})}))
            except RuntimeError as error:  # a program with its preparation inside takes fractions only
                failed.append(error)
    if not found:
        raise NasError(
            config.space.model, " ".join(str(failed[0]).split())[:300], "a model that takes the data's inputs"
        )
    best = max(value for value, _ in found)
    return next(told for value, told in found if value >= best - CLOSE * abs(best))


def _usual(family: Family) -> "list[Known | Scale]":
    """Ways in which models' inputs are usually prepared, beside by the data: of timm's models what timm says, too."""
    if not family.sample.is_image:
        return ["none"]
    found: list[Known | Scale] = [*KNOWN]
    known = known_to_timm(family.settings.model)
    if known is not None and family.sample.shape[0] == len(known.mean):
        own = tuple(known.mean), tuple(known.std)
        found += [] if own in KNOWN.values() else [Scale(mean=own[0], std=own[1])]
    return found


def _rated(
    teacher: "nn.Module", workload: "Workload", splits: "Splits", prepare: Normalisation, settings: Mapping[str, Any]
) -> tuple[float, Told]:
    """The model's metric on a few validation examples: as a number of which larger is better, and told."""
    import torch

    from nas_core.training.loop import measure

    metric, (inputs, targets) = metric_of(workload), splits.validation
    value = measure(teacher, metric, (inputs[:FEW], targets[:FEW]), prepare, workload=workload)
    few, guessed = targets[:FEW], 0.0
    if metric.name == "accuracy" and isinstance(few, torch.Tensor) and few.ndim == 1:
        guessed = float(few.bincount().max()) / len(few)
    told = Told(settings=settings, metric=metric, value=value, num_examples=len(few), guessed=guessed)
    return value if metric.higher_is_better else -value, told


def known_to_timm(model: str) -> Any:
    """What timm says of the inputs of a model of its own; None of others."""
    if not model.startswith("timm:"):
        return None
    from nas_core.families import timm_compat  # noqa: F401 (before timm: makes torchvision importable)

    import timm  # isort: skip

    return timm.get_pretrained_cfg(model.removeprefix("timm:"))
