"""The study's configuration, composed of the rooms' sections."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import Field, ValidationInfo, WithJsonSchema, field_validator

from nas_core.base.errors import NasError
from nas_core.base.plugins import import_plugins, is_path
from nas_core.base.registry import OneOf
from nas_core.base.settings import NAME_PATTERN, Section, load_as, parse_as, read_as, resolved_path
from nas_core.costs import ProfileConfig
from nas_core.families import FAMILIES
from nas_core.prediction.settings import PredictConfig
from nas_core.program.limits import PATTERN
from nas_core.scoring import SCORERS
from nas_core.searchers import SEARCHERS
from nas_core.searchers.settings import DesignConfig, VerifyConfig
from nas_core.training.settings import TrainConfig
from nas_core.workloads import WORKLOADS

DEFAULT_FAMILY, DEFAULT_WORKLOAD, DEFAULT_SCORER, DEFAULT_SEARCHER = "nasbench-macro", "digits", "supernet", "surrogate"


class SelectConfig(Section):
    """The limits, and how many networks are wanted."""

    limits: list[Annotated[str, WithJsonSchema({"type": "string", "pattern": PATTERN})]] = Field(
        default_factory=list,
        description='Limits such as "flops<=60%" (of the base network), "latency_ms<=12 ms", "params<=5 M".',
    )
    top: int = Field(3, ge=1, le=1000, description="Distinct best networks to return.")
    min_distance: int = Field(1, ge=1, description="Positions in which any two of them differ at least.")
    time_limit_s: float = Field(60, gt=0, description="Time limit of the solver.")
    sweep: str = Field(
        "",
        description='A range of one limit, such as "latency_ms=30%..100%": the best network at each of several limits '
        "is found, too; empty: none.",
    )
    points: int = Field(8, ge=2, le=1000, description="Limits of the sweep, evenly apart.")
    recover: int = Field(
        4,
        ge=0,
        le=1000,
        description="Points of the sweep to train as the winner is, evenly apart, both ends among them.",
    )


class ClusterConfig(Section):
    """Where evaluations run. RAY_ADDRESS names an existing cluster; without it a local one is started."""

    num_cpus: float = Field(1, ge=0, description="CPUs an evaluation asks for.")
    num_gpus: float = Field(0, ge=0, description="GPUs an evaluation asks for; fractions share one.")
    training_cpus: float = Field(
        0, ge=0, description="CPUs a long training asks for; 0: its share of a node. Small networks gain nothing."
    )
    resources: dict[str, float] = Field(
        default_factory=dict, description="Custom Ray resources an evaluation asks for."
    )
    profile_resources: dict[str, float] = Field(
        default_factory=dict,
        description="Custom Ray resources latency measurement asks for: pins it to the target device.",
    )
    max_workers: int = Field(
        0, ge=0, le=100_000, description="Workers that an autoscaling cluster may grow to; 0: it stays as it is."
    )
    max_in_flight: int = Field(0, ge=0, description="Most batches under way at a time; 0: one per worker.")
    max_attempts: int = Field(
        3, ge=1, le=100, description="Tries of a batch whose worker dies before it is recorded as failed."
    )
    batch_timeout_s: float = Field(
        86_400, gt=0, description="Time after which a batch counts as hung; its wait for a free worker counts."
    )


class TrackingConfig(Section):
    """MLflow. MLFLOW_TRACKING_URI names a server; without it a SQLite file in the study is used."""

    experiment: str = Field("mathnas", pattern=NAME_PATTERN, description="MLflow experiment.")
    registered_model: str | None = Field(
        None, pattern=NAME_PATTERN, description="Registered model; empty: the study's name."
    )
    alias: str = Field(
        "champion", pattern=r"^[A-Za-z][A-Za-z0-9_-]{0,63}$", description="Alias of the registered version."
    )


def _named_before(section: Mapping[str, Any]) -> dict[str, Any]:
    """A section as earlier versions wrote it: the kind under ``name``."""
    known = dict(section)
    if "kind" not in known and isinstance(known.get("name"), str):
        known["kind"] = known.pop("name")
    return known


def _family_before(section: Mapping[str, Any]) -> dict[str, Any]:
    """A family as earlier versions wrote it: its settings under ``params``, a space's file beside its name."""
    if "kind" in section:  # written by this version: `file` and `params` are settings of the family's own
        return dict(section)
    known = _named_before(section)
    if known.get("file") is not None:
        known["kind"] = "yaml"
    elif "file" in known:
        known.pop("file")
    params = known.pop("params", None)
    return {**known, **params} if isinstance(params, Mapping) else known


Family = Annotated[Any, OneOf(FAMILIES, DEFAULT_FAMILY, _family_before)]
Data = Annotated[Any, OneOf(WORKLOADS, DEFAULT_WORKLOAD, _named_before)]
ScorerSection = Annotated[Any, OneOf(SCORERS, DEFAULT_SCORER)]
SearcherSection = Annotated[Any, OneOf(SEARCHERS, DEFAULT_SEARCHER)]


class StudyConfig(Section):
    """One search: a family of networks, data, a scorer, limits, and what to do with the winner."""

    how_to_make: ClassVar[str] = "`mathnas init` writes one."

    name: str = Field("study", pattern=NAME_PATTERN, description="Name of the study; letters, digits, '_', '-', '.'.")
    seed: int = Field(0, ge=0, le=2**31 - 1, description="Seed from which every random choice derives.")
    plugins: list[str] = Field(
        default_factory=list,
        description="Code of your own to import: a module such as my_pkg, or a file or folder such as ./blocks.py.",
    )
    space: Family = Field(FAMILIES.section(DEFAULT_FAMILY)(), title="Family", description="Family of networks.")
    data: Data = Field(
        WORKLOADS.section(DEFAULT_WORKLOAD)(), title="Workload", description="Data, with a loss and metrics."
    )
    metric: str = Field(
        "",
        description="Metric that networks are compared by, such as accuracy or macro_f1; empty: the scorer's first.",
    )
    scorer: ScorerSection = Field(
        SCORERS.section(DEFAULT_SCORER)(), title="Scorer", description="What rates a network."
    )
    searcher: SearcherSection = Field(
        SEARCHERS.section(DEFAULT_SEARCHER)(),
        title="Searcher",
        description="Which networks are evaluated beside the program's best.",
    )
    design: DesignConfig = Field(DesignConfig(), description="Which networks are evaluated first.")
    profile: ProfileConfig = Field(ProfileConfig(), description="Resources and how they are measured.")
    predict: PredictConfig = Field(PredictConfig(), description="Predictor.")
    select: SelectConfig = Field(SelectConfig(), description="Limits.")
    verify: VerifyConfig = Field(VerifyConfig(), description="Verification and refinement.")
    train: TrainConfig = Field(TrainConfig(), description="The winner's training.")
    cluster: ClusterConfig = Field(ClusterConfig(), description="Where evaluations run.")
    tracking: TrackingConfig = Field(TrackingConfig(), description="Where runs and models are logged.")

    @field_validator("plugins")
    @classmethod
    def _imported(cls, names: list[str], info: ValidationInfo) -> list[str]:
        """Plug-ins register what the sections below may name, so they are imported before those are checked."""
        found = [resolved_path(name, info) if is_path(name) else name for name in names]
        try:
            import_plugins(found)
        except NasError as error:
            raise ValueError(f"plug-ins that import ({error})") from None
        return found

    @field_validator("name")
    @classmethod
    def _name_stays_inside(cls, name: str) -> str:
        if ".." in name:
            raise ValueError("a name without '..'")
        return name


def parse_config(data: Mapping[str, Any], source: str) -> StudyConfig:
    """The checked configuration of a study; raises as ``parse_as``."""
    return parse_as(StudyConfig, data, source)


def read_config(path: str | Path, overrides: Mapping[str, str] | None = None) -> StudyConfig:
    """The study's configuration in a YAML file; overrides and errors as for ``read_as``."""
    return read_as(StudyConfig, path, overrides)


def load_config(
    text: bytes, *, source: str, overrides: Mapping[str, str] | None = None, folder: Path | None = None
) -> StudyConfig:
    """The study's configuration in YAML text, as ``load_as``."""
    return load_as(StudyConfig, text, source=source, overrides=overrides, folder=folder)
