"""Which resources are measured, and how."""

from typing import Literal, get_args

from pydantic import Field

from nas_core.base.settings import Section

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
