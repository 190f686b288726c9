"""The study's configuration, composed of the rooms' sections."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import Field, WithJsonSchema, field_validator

from nas_core.base.settings import NAME_PATTERN, Section, load_as, parse_as, read_as
from nas_core.costs.settings import ProfileConfig
from nas_core.families.settings import SpaceConfig
from nas_core.prediction.settings import PredictConfig
from nas_core.scoring.settings import ScorerConfig, SupernetScorerConfig
from nas_core.searchers.settings import DesignConfig, VerifyConfig
from nas_core.training.settings import TrainConfig
from nas_core.workloads.settings import DataConfig

# what a form can check of a limit; `parse_limit` says more, with the resources that are measured
LIMIT_FORM = r"^ *[A-Za-z_][A-Za-z0-9_.]* *(<=|>=|=|≤|≥).*[0-9]"


class SelectConfig(Section):
    """The limits, and how many networks are wanted."""

    limits: list[Annotated[str, WithJsonSchema({"type": "string", "pattern": LIMIT_FORM})]] = Field(
        default_factory=list,
        description='Limits such as "flops<=60%" (of the base network), "latency_ms<=12 ms", "params<=5 M".',
    )
    top: int = Field(3, ge=1, le=1000, description="Distinct best networks to return.")
    min_distance: int = Field(1, ge=1, description="Positions in which any two of them differ at least.")
    time_limit_s: float = Field(60, gt=0, description="Time limit of the solver.")


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
    batch_timeout_s: float = Field(86_400, gt=0, description="Time after which a batch counts as hung.")


class TrackingConfig(Section):
    """MLflow. MLFLOW_TRACKING_URI names a server; without it a SQLite file in the study is used."""

    experiment: str = Field("mathnas", pattern=NAME_PATTERN, description="MLflow experiment.")
    registered_model: str | None = Field(
        None, pattern=NAME_PATTERN, description="Registered model; empty: the study's name."
    )
    alias: str = Field(
        "champion", pattern=r"^[A-Za-z][A-Za-z0-9_-]{0,63}$", description="Alias of the registered version."
    )


class StudyConfig(Section):
    """One search: a family of networks, data, a scorer, limits, and what to do with the winner."""

    how_to_make: ClassVar[str] = "`mathnas init` writes one."

    name: str = Field("study", pattern=NAME_PATTERN, description="Name of the study; letters, digits, '_', '-', '.'.")
    seed: int = Field(0, ge=0, le=2**31 - 1, description="Seed from which every random choice derives.")
    space: SpaceConfig = Field(SpaceConfig(), description="Family of networks.")
    data: DataConfig = Field(DataConfig(), description="Images.")
    scorer: ScorerConfig = Field(
        SupernetScorerConfig(), description="What rates a network: `train`, `supernet` or `tabular`."
    )
    design: DesignConfig = Field(DesignConfig(), description="Which networks are evaluated first.")
    profile: ProfileConfig = Field(ProfileConfig(), description="Resources and how they are measured.")
    predict: PredictConfig = Field(PredictConfig(), description="Predictor.")
    select: SelectConfig = Field(SelectConfig(), description="Limits.")
    verify: VerifyConfig = Field(VerifyConfig(), description="Verification and refinement.")
    train: TrainConfig = Field(TrainConfig(), description="The winner's training.")
    cluster: ClusterConfig = Field(ClusterConfig(), description="Where evaluations run.")
    tracking: TrackingConfig = Field(TrackingConfig(), description="Where runs and models are logged.")

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
