"""What rates a network, and how."""

from typing import Annotated, Literal

from pydantic import Field

from nas_core.base.settings import Section
from nas_core.training.settings import Recipe


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
    batch: int = Field(256, ge=1, le=100_000, description="Networks per Ray task.")


ScorerConfig = Annotated[
    TrainScorerConfig | SupernetScorerConfig | TabularScorerConfig, Field(discriminator="kind", title="Scorer")
]
