"""The scorer of networks made of a trained model: alternatives learn from the blocks that they replace."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, cast

from pydantic import Field

from nas_core.base.errors import ConfigError
from nas_core.base.identity import content_id
from nas_core.base.settings import Section
from nas_core.families.trained_model import TrainedModel
from nas_core.records.evaluations import CostTable, Evaluation
from nas_core.scoring.scorer import SCORERS, OnProgress, Scorer, Work
from nas_core.space.genotypes import Genotype
from nas_core.training.settings import TRAINING_PASSES, Recipe
from nas_core.workloads.metrics import Measure

if TYPE_CHECKING:
    import torch

    from nas_core.scoring.distil_weights import DistilledBlocks

log = logging.getLogger(__name__)

FITTED_PASSES = 16  # of the samples through a network whose blocks are fitted in order, about
LOSS = Measure(name="loss", label="loss", higher_is_better=False)
DIVERGENCE = Measure(name="divergence", label="KL divergence to the model", higher_is_better=False, unit="nats")


@SCORERS.add
class DistilScorer(Scorer):
    """Alternatives of a trained model's blocks learn from them, then each network is scored; seconds each.

    Every alternative learns to give what the model's block gives (block-wise
    distillation; Li et al., 2020): the model is run once per batch, and feeds
    all of them. A linear map is not trained: least squares gave it already. Without
    epochs weights are only cut and fitted by least squares: those of an alternative to
    the block, then those of each network, block after block, to what really comes in.
    """

    name = "distil"
    version = 11
    runs_networks = True
    for_family = TrainedModel.name
    placement = frozenset({"batch", "eval_batch_size", "memory_gb", "final_steps"})
    final_settings = frozenset({"final_steps"})
    cuts_off_blocks = True

    class Settings(Section):
        recipe: Recipe = Field(
            Recipe(
                epochs=2, batch_size=64, optimizer="adamw", lr=1e-3, weight_decay=0.0, clip_norm=None, augment="crop"
            ),
            description="Training of the alternatives, each to give what the model's block gives.",
        )
        train: bool = Field(True, description="Train the alternatives; without, weights are cut and fitted only.")
        samples: int = Field(
            256,
            ge=0,
            le=100_000,
            description="Training examples that tell importance and fit weights, fewer of images beyond 256 x 256; "
            "0: none.",
        )
        patience: int = Field(
            0,
            ge=0,
            le=1_000_000,
            description="Steps without a lower loss after which an alternative is done; 0: never.",
        )
        recovery_steps: int = Field(
            200,
            ge=0,
            le=1_000_000,
            description="Steps of distillation from the model that every network gets before it is rated, since "
            "some recover better than others; 0: none.",
        )
        final_steps: int = Field(
            1000,
            ge=0,
            le=10_000_000,
            description="Steps of distillation after which the best few networks within the limits are rated once "
            "more, and the best of them is chosen; none is where these are no more than recovery_steps.",
        )
        rated_by: Literal["loss", "divergence", "metric"] = Field(
            "loss",
            description="What networks are compared by: validation loss (of classes with their outputs scaled so that "
            "it is lowest), KL to the model, or the data's metric.",
        )
        calibration_examples: int = Field(
            512, ge=2, description="Training examples that recalibrate normalisation statistics."
        )
        eval_batch_size: int = Field(256, ge=1, description="Validation examples per forward pass.")
        memory_gb: float = Field(
            4,
            gt=0,
            le=1e6,
            description="GB that activations and alternatives in training may take at a time; a "
            "quarter of it is the most that prepared images may, else they are prepared for each network anew.",
        )
        batch: int = Field(
            4, ge=1, le=10_000, description="Networks per Ray task; without recovery those that share prefixes gain."
        )

    @property
    def identity(self) -> dict[str, Any]:
        settings = self.settings
        learns = settings.train or settings.recovery_steps
        return {**super().identity, "recipe": settings.recipe.identity if learns else None}

    @classmethod
    def rates_again(cls, settings: Any) -> bool:
        return bool(settings.recovery_steps < settings.final_steps)

    @property
    def final(self) -> "DistilScorer | None":
        """The same with the longer recovery, where networks get one at all."""
        if not self.rates_again(self.settings):
            return None
        steps = self.settings.final_steps
        settings = self.settings.model_copy(update={"recovery_steps": steps})
        recipe = self.settings.recipe.identity
        identity = content_id({"scorer": self.scorer_id, "recovery_steps": steps, "recipe": recipe})
        return DistilScorer(settings, replace(self.setting, known_as=identity))

    @property
    def reconstructs(self) -> bool:
        """Whether the blocks of each assembled network are fitted once more, in order.

        They are where nothing is trained. Networks of tokens are, too, where they are rated as assembled:
        attention blocks that see unfamiliar inputs leave many of them near chance.
        """
        settings, places = self.settings, cast(TrainedModel, self.family).structure.split.places
        takes_tokens = any(len(place.in_shape) == 2 for place in places)  # patches are cut from images
        return settings.samples > 0 and (not settings.train or (takes_tokens and not settings.recovery_steps))

    def notes(self) -> Sequence[str]:
        if self.final is None:
            return ()
        steps, final = self.settings.recovery_steps, self.settings.final_steps
        first = f"recover for {steps:,} steps before they are rated" if steps else "are rated as they are assembled"
        return (f"Networks {first}, the best few once more after a recovery of {final:,} steps",)

    @property
    def measure(self) -> Measure:
        known = {"loss": LOSS, "divergence": DIVERGENCE}
        return known.get(self.settings.rated_by) or super().measure

    @cached_property
    def weights_id(self) -> str:
        """Id of what the alternatives depend on: how networks are rated does not matter to them."""
        settings = self.settings
        known = {name: self.identity[name] for name in ("train", "samples", "patience")}
        known["recipe"] = settings.recipe.identity if settings.train else None
        return content_id({"scorer": SCORERS.identity(self.name), "settings": known, "data": self.workload.identity})

    def weights_path(self, position: int) -> str:
        """Where in the store the alternatives of a position are, once they are made."""
        folder = f"scorers/{self.weights_id}/{self.family.space.space_id}/distilled-s{self.setting.seed}"
        return f"{folder}/position-{position}.safetensors"

    @property
    def pieces(self) -> Sequence[str]:
        return [
            str(position)
            for position in range(self.family.space.num_positions)
            if not self.store.exists(self.weights_path(position))
        ]

    @property
    def num_pieces(self) -> int:
        return self.family.space.num_positions

    def check(self, stored: Sequence[Evaluation] = ()) -> None:
        self.workload.check()
        self.settings.recipe.check("scorer.recipe")
        if not isinstance(self.family, TrainedModel):
            found = f"distil with the family {self.family.name}, which has no trained model"
            raise ConfigError("scorer.kind", found, "the family `model`, or a scorer that trains networks")
        self.family.check()
        self.family.reference.check_weights()

    @property
    def prepared(self) -> bool:
        return not self.pieces

    def prepare(self, on_progress: OnProgress) -> None:
        """Make the alternatives of the positions that are missing; resumes, raises as ``prepare_pieces``."""
        self.prepare_pieces(self.pieces, on_progress)

    def prepare_pieces(self, pieces: Sequence[str], on_progress: OnProgress) -> None:
        """Make the alternatives of these positions.

        Raises:
            DataError: if data or the model's weights are missing.
            TrainingDiverged: if the loss is no finite number.
        """
        left = set(self.pieces)
        if wanted := [int(piece) for piece in pieces if piece in left]:
            self.check()
            self.blocks.make(wanted, on_progress)

    def evaluate(self, genotypes: Sequence[Genotype]) -> list[Evaluation]:
        """Rows of the genotypes; each one's seconds are its share of the pass it was part of."""
        return self.blocks.rate(genotypes)

    @property
    def starts_from(self) -> str:
        known = {"weights": self.weights_id, "space": self.family.space.space_id, "seed": self.setting.seed}
        known["reconstructs"] = self.reconstructs
        return content_id({**known, "calibration_examples": self.settings.calibration_examples})

    def start(self, genotype: Genotype) -> "Mapping[str, torch.Tensor]":
        """The assembled network's weights, its normalisation statistics recalibrated; the model's own for the model."""
        return self.blocks.start(genotype)

    def head_start(self, flops: CostTable) -> float:
        """The model runs once for each example, and every alternative forward and backward.

        Solved ones, which are not trained, count as well: which they are is known only once they are made.
        """
        if not self.settings.train:
            return 0.0
        num_train, _ = self.workload.num_examples()
        own = flops.total(Genotype((0,) * len(flops.block)))
        swaps = sum(sum(row[1:]) for row in flops.block)
        return float(self.settings.recipe.epochs * num_train * (own + TRAINING_PASSES * swaps))

    def work(self) -> Work:
        settings, (num_train, num_validation) = self.settings, self.workload.num_examples()
        choices = max(self.family.space.num_choices)
        # every alternative's forward and backward pass, about half a block each, after the model's own pass
        distilled = settings.recipe.epochs * num_train if settings.train else 0.0
        recovered = settings.recovery_steps * settings.recipe.batch_size
        fitted = FITTED_PASSES * settings.samples if self.reconstructs else 0
        return Work(
            first_trained=distilled * (1 / TRAINING_PASSES + choices / 2),
            each_trained=recovered * (1 + 1 / TRAINING_PASSES),
            each_run=num_validation + settings.calibration_examples + fitted,
        )

    @cached_property
    def blocks(self) -> "DistilledBlocks":
        from nas_core.scoring.distil_weights import DistilledBlocks

        return DistilledBlocks(self)
