"""The configuration of a designed network: DeepMAD's program, the images, the training.

What ``mathnas design`` takes as options is the section ``program`` here.
"""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from nas_core.base.errors import ConfigError
from nas_core.base.identity import content_id
from nas_core.base.settings import NAME_PATTERN, PathText, Section
from nas_core.base.units import parse_count
from nas_core.deepmad.domain import Domain, Limits, default_domain, with_changes
from nas_core.deepmad.latency_table import LatencyTable
from nas_core.deepmad.structure import DEFAULT_HEAD, DEFAULT_STRIDES, IMAGE_CHANNELS, Family, Skeleton
from nas_core.study.config import DEFAULT_WORKLOAD, ClusterConfig, Data, TrackingConfig
from nas_core.training.settings import FullTrainingConfig
from nas_core.workloads import WORKLOADS

VERSION = 1  # raised when the same program is answered differently: stored answers are then solved again


def _as_text(value: object) -> object:
    """A number that YAML has read, as the text it was."""
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


def _is_a_count(text: str) -> str:
    try:
        parse_count(text, "")
    except ConfigError as error:
        raise ValueError(error.expected) from None
    return text


Count = Annotated[str, BeforeValidator(_as_text), AfterValidator(_is_a_count)]


class ProgramConfig(Section):
    """DeepMAD's program: a family of structures, limits, an objective, and how far to solve it."""

    family: Family = Field("resnet", description="resnet (1x1 - kxk - 1x1) or mobilenet (depthwise, SE).")
    resolution: int = Field(
        224, ge=2, le=8192, description="Side of the input, pixels, a multiple of the total stride; images are resized."
    )
    strides: tuple[Literal[1, 2], ...] | None = Field(
        None, description="Stride of every super-block after the stem's 2; empty: the family's usual five."
    )
    head: int | None = Field(
        None, ge=1, le=65_536, description="Channels of the 1x1 head; empty: 1792 for mobilenet, none for resnet."
    )
    flops: Count | None = Field(
        None, description='At most, such as "1.82 G": multiply-adds, BN and activations; classifier left out.'
    )
    params: Count | None = Field(None, description='At most, such as "11.69 M"; classifier left out.')
    rho: float | None = Field(None, gt=0, le=100, description="Effectiveness at most: usual are 0.3 (resnet), 0.5.")
    latency_us: Count | None = Field(None, description="At most, microseconds by `latency_table`.")
    latency_table: PathText | None = Field(None, description="JSON file of measured inner blocks.")
    domain: dict[str, Any] = Field(
        default_factory=dict,
        description="Other ranges than the family's: stem, step, monotone, growth, narrow, wide, "
        "blocks (per super-block: out, bottleneck, depth, kernels).",
    )
    objective: Literal["tinynas", "paper"] = Field(
        "tinynas", description="The authors' code's objective or the paper's."
    )
    gap: float = Field(0.0, ge=0, lt=1, description="Stop at this relative gap; 0 goes on to a proof of optimality.")
    cpu_s: float = Field(60, gt=0, le=1e6, description="Time for solving, CPU seconds.")

    @model_validator(mode="after")
    def _something_is_limited(self) -> "ProgramConfig":
        if self.flops is None and self.params is None and self.latency_us is None:
            raise ValueError("flops, params or latency_us: without a limit the largest structure is the best")
        return self

    def build_domain(self, image_channels: int = IMAGE_CHANNELS) -> Domain:
        """All structures that may be answered, for images of so many channels.

        Raises:
            NasError: for strides, ranges or a resolution that contradict each other.
        """
        skeleton = Skeleton(
            family=self.family,
            resolution=self.resolution,
            strides=DEFAULT_STRIDES[self.family] if self.strides is None else self.strides,
            head=DEFAULT_HEAD[self.family] if self.head is None else self.head,
            image_channels=image_channels,
        )
        return with_changes(default_domain(skeleton), self.domain, "program.domain")

    def build_limits(self) -> Limits:
        """The limits, with the latency table read.

        Raises:
            NasError: for a latency limit without a table, or a table that cannot be read.
        """
        names = ("flops", "params", "latency_us")
        given = {name: getattr(self, name) for name in names if getattr(self, name) is not None}
        table = None if self.latency_table is None else LatencyTable.read(self.latency_table)
        counts = {name: parse_count(text, f"program.{name}") for name, text in given.items()}
        return Limits(rho=self.rho, latency_table=table, **counts)

    def program_id(self, image_channels: int) -> str:
        """Id of all that the best structure depends on: not how far, nor from where, it is searched for."""
        limits = self.build_limits()
        table = limits.latency_table
        measured = None if table is None else [table.fixed_us, sorted(map(list, table.block_us.items()))]
        fields = self.model_dump(mode="json", include={"family", "domain", "objective"})
        skeleton = self.build_domain().skeleton
        where = {"resolution": skeleton.resolution, "strides": skeleton.strides, "head": skeleton.head}
        where |= {} if image_channels == IMAGE_CHANNELS else {"image_channels": image_channels}
        most = {name: getattr(limits, name) for name in ("flops", "params", "rho", "latency_us")}
        return content_id({**fields, **where, **most, "measured": measured, "version": VERSION})


class AnalyticConfig(Section):
    """A network designed from limits alone, then trained: no scorer, no evaluations."""

    name: str = Field("design", pattern=NAME_PATTERN, description="Name of the design; letters, digits, '_', '-', '.'.")
    seed: int = Field(0, ge=0, le=2**31 - 1, description="Seed of the search and of the training.")
    program: ProgramConfig = Field(description="What is designed, within which limits.")
    data: Data = Field(WORKLOADS.section(DEFAULT_WORKLOAD)(), title="Workload", description="Images to train on.")
    metric: str = Field("", description="Metric of the data that the network is looked at by; empty: the data's first.")
    train: FullTrainingConfig = Field(FullTrainingConfig(), description="The designed network's training.")
    cluster: ClusterConfig = Field(ClusterConfig(), description="Where it is trained.")
    tracking: TrackingConfig = Field(TrackingConfig(), description="Where the run and the model are logged.")
