"""The study's configuration: one frozen pydantic model per section, unknown keys refused.

The YAML file, the dashboard's form and the command line's ``--set`` are all
checked here, before any compute is spent. Every field has a description, and
a unit and a range where it is a number.
"""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, WithJsonSchema, field_validator, model_validator

from nas_core.errors import ConfigError
from nas_core.identity import content_id

# fields that name a file or a folder
PATHS = (("space", "file"), ("data", "path"), ("scorer", "path"), ("program", "latency_table"))
BOUNDS = {"minimum": "at least", "exclusiveMinimum": "above", "maximum": "at most", "exclusiveMaximum": "below"}
NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$"


def _title(name: str, _: object) -> str:
    """``batch_timeout_s`` as a person reads it in a form: Batch timeout, seconds."""
    words = name.removesuffix("_s").replace("_", " ")
    return words[:1].upper() + words[1:] + (", seconds" if name.endswith("_s") else "")


def _say_ranges(schema: dict[str, Any]) -> None:
    """Put each number's range into its description: forms show that and not the bounds."""
    for field in schema.get("properties", {}).values():
        for alternative in (field, *field.get("anyOf", ())):
            words = _range_in_words(alternative)
            if words and "description" in field:
                field["description"] += f" {words}"


def _range_in_words(schema: Mapping[str, Any]) -> str:
    """``From 1 to 100.``, ``Above 0, at most 1.``, or nothing for what has no bounds."""
    if {"minimum", "maximum"} <= schema.keys():
        return f"From {schema['minimum']:,g} to {schema['maximum']:,.15g}."
    named = [f"{words} {schema[bound]:,.15g}" for bound, words in BOUNDS.items() if bound in schema]
    return f"{', '.join(named).capitalize()}." if named else ""


class Section(BaseModel):
    """A part of the configuration: frozen, and any key it does not know is an error."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        allow_inf_nan=False,
        field_title_generator=_title,
        json_schema_extra=_say_ranges,
    )

    def as_yaml(self) -> bytes:
        """Every field, defaults included, as ``load_as`` reads it."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True).encode()


def _list_spaces(schema: dict[str, Any]) -> None:
    from nas_core.spaces import SPACES  # which builds on this module

    schema["enum"] = sorted(SPACES)


Configuration = TypeVar("Configuration", bound=Section)


class SpaceConfig(Section):
    """The family of networks: a registered one by name, or a YAML file that defines one."""

    name: str = Field(
        "nasbench-macro",
        description="Registered search space (see `mathnas spaces`).",
        json_schema_extra=_list_spaces,
    )
    file: str | None = Field(None, description="YAML file that defines a space; replaces `name`.")
    params: dict[str, int | float | str | bool] = Field(
        default_factory=dict, description="Arguments of the registered space, such as stem_channels or resolution."
    )


class DataConfig(Section):
    """The images. Scoring sees train and validation only; test is touched once, by trained networks."""

    name: Literal["digits", "fashion-mnist", "cifar10", "folder"] = Field("digits", description="Data set.")
    path: str | None = Field(
        None, description="Folder or Parquet file of the data, where it is not at its usual place."
    )
    download: bool = Field(False, description="Fetch the images over the network where they are not found.")
    train_examples: int | None = Field(
        None, ge=1, description="Images to train on while scoring; empty: all but validation."
    )
    validation_examples: int = Field(
        1000, ge=1, description="Images held out of the training split to score networks on."
    )
    split_seed: int = Field(0, ge=0, description="Seed of the train/validation split.")

    @property
    def identity(self) -> dict[str, object]:
        """What of the data a score depends on (where a named set lies does not matter)."""
        fields = self.model_dump(exclude={"path", "download"})
        return {**fields, "path": self.path if self.name == "folder" else None}


class Recipe(Section):
    """How a network is trained: SGD with momentum, cosine schedule with warm-up."""

    epochs: float = Field(10, gt=0, le=10_000, description="Passes over the training images.")
    batch_size: int = Field(128, ge=1, le=65_536, description="Images per step.")
    lr: float = Field(0.1, gt=0, le=100, description="Peak learning rate, for the batch size given.")
    momentum: float = Field(0.9, ge=0, lt=1, description="Nesterov momentum.")
    weight_decay: float = Field(
        5e-4, ge=0, le=1, description="Decay of convolution and linear weights (not of norms and biases)."
    )
    warmup_fraction: float = Field(
        0.1, ge=0, lt=1, description="Share of the steps over which the rate rises linearly."
    )
    label_smoothing: float = Field(0.0, ge=0, lt=1, description="Label smoothing.")
    augment: Literal["none", "crop", "crop-flip", "crop-flip-cutout"] = Field(
        "crop", description="On-device augmentation; crop pads and shifts by an eighth of the side."
    )
    ema_decay: float | None = Field(None, gt=0, lt=1, description="Decay of the weights' moving average; empty: none.")
    clip_norm: float | None = Field(5.0, gt=0, description="Gradient norm clip; empty: none.")
    amp: bool = Field(True, description="bfloat16 autocast where the device is a GPU.")
    compile: bool = Field(False, description="torch.compile the network (pays for long trainings on a GPU).")


class TrainScorerConfig(Section):
    """Each network from scratch with a short recipe; the metric is validation accuracy."""

    kind: Literal["train"] = "train"
    recipe: Recipe = Field(Recipe(), description="The short recipe.")
    batch: int = Field(1, ge=1, le=1000, description="Networks per Ray task.")


class SupernetScorerConfig(Section):
    """Shared weights trained once; then each network is scored on validation with its own statistics."""

    kind: Literal["supernet"] = "supernet"
    recipe: Recipe = Field(Recipe(), description="Training of the shared weights.")
    random_paths: int = Field(
        2, ge=0, le=64, description="Random networks per step, beside the smallest and the largest."
    )
    sandwich: bool = Field(True, description="Train the smallest and the largest network in every step.")
    calibration_examples: int = Field(
        512, ge=2, description="Training images that recalibrate normalisation statistics."
    )
    eval_batch_size: int = Field(256, ge=1, description="Validation images per forward pass.")
    side_by_side: int = Field(0, ge=0, le=1024, description="Networks run as one batch; 0: 1 on a CPU, 16 on a GPU.")
    batch: int = Field(32, ge=1, le=10_000, description="Networks per Ray task; those that share prefixes go together.")


class TabularScorerConfig(Section):
    """A table of known results; the metric is read from it."""

    kind: Literal["tabular"] = "tabular"
    path: str = Field(description="Parquet table, or NAS-Bench-Macro's public JSON.")
    choices: list[str] = Field(
        default_factory=list, description="Columns of the choices, one per position; empty: `arch`."
    )
    metric: str = Field("mean_acc", description="Column of the metric.")
    higher_is_better: bool = Field(True, description="Whether more of the metric is better.")
    same_function: str | None = Field(
        None, description="Column in which networks that compute the same function have the same value; empty: none."
    )
    batch: int = Field(256, ge=1, le=100_000, description="Networks per Ray task.")


ScorerConfig = Annotated[
    TrainScorerConfig | SupernetScorerConfig | TabularScorerConfig, Field(discriminator="kind", title="Scorer")
]


class DesignConfig(Section):
    """Which networks are evaluated before the first selection."""

    base: str = Field(
        "largest", description="Base network: `largest`, `smallest`, `random`, or a genotype such as 2-0-1-1."
    )
    kind: Literal["balanced", "one-swap"] = Field(
        "balanced",
        description="balanced: the base and networks in which every block occurs about equally often; "
        "one-swap: contexts and all their neighbours, each block measured against another, as in MathNAS.",
    )
    networks: int = Field(
        0,
        ge=0,
        le=100_000,
        description="Networks of a balanced design; 0: half as many as blocks, "
        "and no fewer than the position with most blocks has.",
    )
    contexts: int = Field(
        1, ge=1, le=1000, description="One-swap: networks around which blocks are swapped one at a time."
    )
    context_kind: Literal["base", "mean-flops", "random"] = Field(
        "base",
        description="One-swap: the first context: base itself, or MathNAS Algorithm 1's nearest-mean-FLOPs network, "
        "or random.",
    )
    held_out: int = Field(
        8,
        ge=0,
        le=10_000,
        description="Random networks evaluated to say how far to trust predictions, never to fit them; "
        "without any, a one-swap design's intervals are too narrow.",
    )

    @model_validator(mode="after")
    def _is_of_its_kind(self) -> "DesignConfig":
        if self.kind == "balanced" and (self.contexts != 1 or self.context_kind != "base"):
            raise ValueError("kind: one-swap with contexts or context_kind; a balanced design has no contexts")
        if self.kind == "one-swap" and self.networks:
            raise ValueError("kind: balanced with networks; contexts say how many a one-swap design has")
        return self


Resource = Literal["flops", "params", "activation_bytes", "latency_ms"]


class ProfileConfig(Section):
    """Which resources are measured, and how."""

    resources: list[Resource] = Field(list(get_args(Resource)), description="Resources to measure.")
    batch_size: int = Field(1, ge=1, le=65_536, description="Images per batch while latency is measured.")
    num_threads: int = Field(1, ge=1, le=1024, description="CPU threads while latency is measured.")
    warmup: int = Field(5, ge=0, le=10_000, description="Untimed runs before the timed ones.")
    repeats: int = Field(30, ge=3, le=100_000, description="Timed runs per block; the median counts.")
    channels_last: bool = Field(False, description="Measure latency with channels-last activations and weights.")
    networks: int = Field(12, ge=0, le=10_000, description="Whole networks timed to say how additive latency is.")
    device: Literal["auto", "cpu", "cuda"] = Field(
        "auto", description="Device measured; auto: a GPU where there is one."
    )


class PredictConfig(Section):
    """How a network's metric is predicted from its blocks; `auto` lets cross-validation choose."""

    link: Literal["auto", "identity", "log-error", "reciprocal-error", "rank"] = Field(
        "auto", description="Monotone transform in which block effects add up."
    )
    flops_exponent: float | Literal["auto"] = Field(
        "auto", description="p in (mean FLOPs / FLOPs)^p: 0 additive, 1 the paper's rule (MathNAS Eq. 4)."
    )
    pairs: bool | Literal["auto"] = Field("auto", description="Pairwise terms between positions.")

    @model_validator(mode="after")
    def _has_a_program(self) -> "PredictConfig":
        if self.pairs is True and self.flops_exponent not in ("auto", 0):
            raise ValueError("flops_exponent auto or 0 with pairs: a ratio of pairwise sums has no exact program")
        return self


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


class VerifyConfig(Section):
    """Solve, evaluate the best for real, refit, until the choice stands."""

    evaluations: int = Field(32, ge=0, le=1_000_000, description="Most networks evaluated in all rounds together.")
    per_round: int = Field(4, ge=1, le=10_000, description="Networks evaluated per round.")
    patience: int = Field(
        4, ge=1, le=100, description="Rounds in a row without a better network after which the choice stands."
    )


class FullTrainingConfig(Section):
    """The full training of one network."""

    recipe: Recipe = Field(
        Recipe(epochs=30, label_smoothing=0.1, augment="crop-flip", ema_decay=0.998), description="The full recipe."
    )
    train_examples: int | None = Field(None, ge=1, description="Images to train on; empty: all but validation.")
    checkpoint_every_s: float = Field(30, ge=0, description="Time between checkpoints of a training.")


class TrainConfig(FullTrainingConfig):
    """The winner's full training, and what it is compared with."""

    compare_base: bool = Field(True, description="Train the base network alike.")
    compare_random: int = Field(1, ge=0, le=100, description="Random networks within the limits to train alike.")


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


def scorer_id(config: StudyConfig, version: int) -> str:
    """Id of the scorer's settings, data and code version; tabular scores do not depend on images.

    How many networks share a Ray task, or run side by side, changes no score, nor does which of them are the same.
    """
    no_matter = {"batch", "side_by_side", "eval_batch_size", "same_function"}
    settings = config.scorer.model_dump(mode="json", exclude=no_matter)
    if config.scorer.kind == "tabular":  # where the table lies does not matter, nor do images
        settings["path"] = Path(config.scorer.path).name
    data = {} if config.scorer.kind == "tabular" else config.data.identity
    return content_id({"scorer": settings, "data": data, "version": version})


def parse_config(data: Mapping[str, Any], source: str) -> StudyConfig:
    """The checked configuration of a study; raises as ``parse_as``."""
    return parse_as(StudyConfig, data, source)


def parse_as(kind: type[Configuration], data: Mapping[str, Any], source: str) -> Configuration:
    """The checked configuration.

    Raises:
        ConfigError: with the first wrong field's path, its value and what is allowed.
    """
    try:
        return kind.model_validate(data)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        path = ".".join(str(part) for part in first["loc"])
        found = "nothing" if first["type"] == "missing" else repr(first["input"])[:200]
        more = error.error_count() - 1
        advice = f"{more} more wrong fields." if more else ""
        expected = _expectation(kind, first, path)
        raise ConfigError(f"{source}: {path or 'top level'}", found, expected, advice) from None


def _expectation(kind: type[Section], error: Any, path: str) -> str:
    """What is allowed, in words; for an unknown key, the keys of its section."""
    if error["type"] == "missing":
        return "a value, it has no default"
    if error["type"] != "extra_forbidden":
        return re.sub(r"^(Input should be|Value error,) ", "", str(error["msg"]))
    section: Any = kind
    for part in path.split(".")[:-1]:
        field = getattr(section, "model_fields", {}).get(part)
        section = field.annotation if field is not None else section
    known = ", ".join(getattr(section, "model_fields", {})) or "a key of its section"
    return f"one of the keys: {known}"


def read_config(path: str | Path, overrides: Mapping[str, str] | None = None) -> StudyConfig:
    """The study's configuration in a YAML file; overrides and errors as for ``read_as``."""
    return read_as(StudyConfig, path, overrides)


def read_as(kind: type[Configuration], path: str | Path, overrides: Mapping[str, str] | None = None) -> Configuration:
    """The configuration in a YAML file, with dotted overrides such as ``{"scorer.recipe.epochs": "2"}``.

    Raises:
        ConfigError: if the file is missing, is no YAML mapping, or a field is wrong.
    """
    try:
        text = Path(path).read_bytes()
    except OSError as error:
        advice = "`mathnas init` writes one." if kind is StudyConfig else ""
        raise ConfigError(str(path), error.strerror, "a readable YAML file", advice) from None
    return load_as(kind, text, source=str(path), overrides=overrides, folder=Path(path).absolute().parent)


def load_config(
    text: bytes, *, source: str, overrides: Mapping[str, str] | None = None, folder: Path | None = None
) -> StudyConfig:
    """The study's configuration in YAML text, as ``load_as``."""
    return load_as(StudyConfig, text, source=source, overrides=overrides, folder=folder)


def load_as(
    kind: type[Configuration],
    text: bytes,
    *,
    source: str,
    overrides: Mapping[str, str] | None = None,
    folder: Path | None = None,
) -> Configuration:
    """The configuration in YAML text; ``source`` is what errors call it. Raises as ``read_as``.

    Relative paths in it are relative to ``folder``, where one is given.
    """
    try:
        data = yaml.safe_load(text.decode())
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise ConfigError(source, yaml_mistake(error), "YAML") from None
    if not isinstance(data, dict):
        raise ConfigError(source, type(data).__name__, "a mapping of sections such as `space:` and `data:`")
    for dotted, value in (overrides or {}).items():
        _override(data, dotted, value)
    for section, field in PATHS:
        _resolve_path(data, section, field, folder)
    return parse_as(kind, data, source)


def yaml_mistake(error: Exception) -> str:
    """What is wrong with a text that is no YAML, and in which line."""
    mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None)
    words = " ".join(str(problem or error).split())[:300]
    return f"{words} in line {mark.line + 1}, column {mark.column + 1}" if mark else words


def _resolve_path(data: dict[str, Any], section: str, field: str, folder: Path | None) -> None:
    """Environment variables and ``~`` expanded; relative paths joined to the folder."""
    fields = data.get(section)
    if isinstance(fields, dict) and isinstance(fields.get(field), str):
        path = Path(os.path.expandvars(fields[field])).expanduser()
        fields[field] = str(path if folder is None else folder / path)


def _override(data: dict[str, Any], dotted: str, text: str) -> None:
    *sections, last = dotted.split(".")
    target = data
    for section in sections:
        target = target.setdefault(section, {})
        if not isinstance(target, dict):
            raise ConfigError(f"--set {dotted}", f"{section} is no section", "section.field=value")
    try:
        target[last] = yaml.safe_load(text)
    except yaml.YAMLError:
        raise ConfigError(f"--set {dotted}", repr(text), "a YAML value") from None
