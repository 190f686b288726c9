"""How a network's metric is predicted."""

from typing import Literal

from pydantic import Field, model_validator

from nas_core.base.settings import Section

LEAST_NETWORKS = 3  # fewer cannot be cross-validated


class PredictConfig(Section):
    """How a network's metric is predicted from its blocks; `auto` lets cross-validation choose."""

    link: Literal["auto", "identity", "log-error", "reciprocal-error", "log", "rank"] = Field(
        "auto",
        description="Monotone transform in which block effects add up; log is for losses above 0, for which auto does "
        "not try rank.",
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
