"""Which networks are evaluated first, and how many more."""

from typing import Literal

from pydantic import Field, field_validator, model_validator

from nas_core.base.settings import Section
from nas_core.prediction.settings import LEAST_NETWORKS


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
        description=f"Networks of a balanced design, {LEAST_NETWORKS} at least; 0: half as many as blocks, "
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

    @field_validator("networks")
    @classmethod
    def _are_enough(cls, networks: int) -> int:
        if 0 < networks < LEAST_NETWORKS:
            raise ValueError(f"{LEAST_NETWORKS} at least, as many as can be fitted to; 0: as many as serve the space")
        return networks

    @model_validator(mode="after")
    def _is_of_its_kind(self) -> "DesignConfig":
        if self.kind == "balanced" and (self.contexts != 1 or self.context_kind != "base"):
            raise ValueError("kind: one-swap with contexts or context_kind; a balanced design has no contexts")
        if self.kind == "one-swap" and self.networks:
            raise ValueError("kind: balanced with networks; contexts say how many a one-swap design has")
        return self


class VerifyConfig(Section):
    """Solve, evaluate the best for real, refit, until the choice stands."""

    evaluations: int = Field(
        32,
        ge=0,
        le=1_000_000,
        description="Most networks evaluated in all rounds together; two rounds more each time that a limit on what is "
        "measured moves.",
    )
    per_round: int = Field(4, ge=1, le=10_000, description="Networks evaluated per round.")
    patience: int = Field(
        4, ge=1, le=100, description="Rounds in a row without a better network after which the choice stands."
    )
