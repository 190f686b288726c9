"""Which networks are evaluated first, and how many more."""

from typing import Literal

from pydantic import Field

from nas_core.base.settings import Section


class DesignConfig(Section):
    """Which networks are evaluated before the first selection."""

    base: str = Field(
        "largest", description="Base network: `largest`, `smallest`, `random`, or a genotype such as 2-0-1-1."
    )
    kind: Literal["one-swap", "balanced"] = Field(
        "one-swap",
        description="one-swap: contexts and all their neighbours, a direct measurement of every block; "
        "balanced: fewer networks in which every block occurs about equally often.",
    )
    networks: int = Field(0, ge=0, le=100_000, description="Networks of a balanced design; 0: half as many as blocks.")
    contexts: int = Field(1, ge=1, le=1000, description="Networks around which blocks are swapped one at a time.")
    context_kind: Literal["base", "mean-flops", "random"] = Field(
        "base",
        description="The first context: base itself, or MathNAS Algorithm 1's nearest-mean-FLOPs network, or random.",
    )
    held_out: int = Field(
        8, ge=0, le=10_000, description="Random networks evaluated to calibrate the predictor, never to fit it."
    )


class VerifyConfig(Section):
    """Solve, evaluate the best for real, refit, until the choice stands."""

    evaluations: int = Field(24, ge=0, le=1_000_000, description="Most networks evaluated in all rounds together.")
    per_round: int = Field(4, ge=1, le=10_000, description="Networks evaluated per round.")
    patience: int = Field(
        3, ge=1, le=100, description="Rounds in a row without a better network after which the choice stands."
    )
