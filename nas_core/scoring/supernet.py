"""The supernet scorer: shared weights trained once, then every network rated as a path through them."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from pydantic import Field, field_validator

from nas_core.base.errors import ConfigError
from nas_core.base.identity import content_id, evaluation_seed
from nas_core.base.settings import Section
from nas_core.base.words import counted
from nas_core.families.family import Family
from nas_core.records.evaluations import Evaluation
from nas_core.scoring.scorer import SCORERS, OnProgress, Scorer, Work
from nas_core.scoring.train import TrainScorer
from nas_core.space.genotypes import Genotype
from nas_core.training.settings import Recipe

if TYPE_CHECKING:
    from nas_core.scoring.supernet_weights import SupernetWeights

log = logging.getLogger(__name__)


@SCORERS.add
class SupernetScorer(Scorer):
    """Shared weights trained once, then each network is scored with its own normalisation statistics; seconds each.

    Training samples paths uniformly (Guo et al., 2020) and adds the smallest and
    the largest network to every step (the sandwich rule, Yu et al., 2020).
    """

    name = "supernet"
    runs_networks = True
    version = 4
    placement = frozenset({"batch", "side_by_side", "eval_batch_size", "final_recipe"})
    final_settings = frozenset({"final_recipe"})
    prepares_together = True

    class Settings(Section):
        recipe: Recipe = Field(Recipe(), description="Training of the shared weights.")
        random_paths: int = Field(
            2, ge=0, le=64, description="Random networks per step, beside the smallest and the largest."
        )
        sandwich: bool = Field(True, description="Train the smallest and the largest network in every step.")
        calibration_examples: int = Field(
            512, ge=2, description="Training examples that recalibrate normalisation statistics."
        )
        eval_batch_size: int = Field(256, ge=1, description="Validation examples per forward pass.")
        side_by_side: int = Field(
            0, ge=0, le=1024, description="Networks run as one batch; 0: 1 on a CPU, 16 on a GPU."
        )
        batch: int = Field(
            32, ge=1, le=10_000, description="Networks per Ray task; those that share prefixes go together."
        )
        final_recipe: Recipe | None = Field(
            None,
            description="Training from fresh weights of the best few networks within the limits, each by itself, after "
            "which the best of them is chosen: shared weights hardly tell near-equals apart. None: their word stands.",
        )

        @field_validator("final_recipe", mode="before")
        @classmethod
        def _from_a_form(cls, recipe: Any) -> Any:
            return Recipe().completed(recipe) if isinstance(recipe, Mapping) else recipe

    @classmethod
    def rates_again(cls, settings: Any) -> bool:
        return settings.final_recipe is not None

    @property
    def final(self) -> TrainScorer | None:
        """Trains the networks by themselves, where there is a recipe for it."""
        recipe = self.settings.final_recipe
        if recipe is None:
            return None
        trained_by = SCORERS.identity(TrainScorer.name)
        identity = content_id({"scorer": self.scorer_id, "final_recipe": recipe.identity, "trained_by": trained_by})
        settings = TrainScorer.Settings(recipe=recipe, validate_epochs=0)
        return TrainScorer(settings, replace(self.setting, known_as=identity))

    def notes(self) -> Sequence[str]:
        if (recipe := self.settings.final_recipe) is None:
            return ()
        return (
            "Shared weights rate the networks; the best few are then trained by themselves, "
            f"{counted(recipe.epochs, 'epoch')}",
        )

    @cached_property
    def seed(self) -> int:
        return evaluation_seed(self.setting.seed, "supernet")

    @cached_property
    def weights_id(self) -> str:
        """Id of what the shared weights depend on: how networks are rated with them does not matter to them."""
        known = {name: self.identity[name] for name in ("recipe", "random_paths", "sandwich")}
        return content_id({"scorer": SCORERS.identity(self.name), "settings": known, "data": self.workload.identity})

    @property
    def weights_path(self) -> str:
        """Where in the store the shared weights are, once they are trained."""
        before = self._path_of(self.scorer_id)  # where earlier versions kept them
        return before if self.store.exists(before) else self._path_of(self.weights_id)

    def _path_of(self, identity: str) -> str:
        return f"scorers/{identity}/{self.family.space.space_id}/supernet-s{self.setting.seed}.safetensors"

    @property
    def prepared(self) -> bool:
        return self.store.exists(self.weights_path)

    @property
    def identity(self) -> dict[str, Any]:
        return {**super().identity, "recipe": self.settings.recipe.identity}

    def check(self, stored: Sequence[Evaluation] = ()) -> None:
        self.workload.check()
        self.settings.recipe.check("scorer.recipe")
        if self.settings.final_recipe is not None:
            self.settings.final_recipe.check("scorer.final_recipe")
        if type(self.family).shared is Family.shared:
            found = f"supernet with the family {self.family.name}, which has no shared network"
            raise ConfigError("scorer.kind", found, "a scorer that trains networks one by one, such as train")

    def prepare(self, on_progress: OnProgress) -> None:
        """Train the shared weights, or go on where an interrupted training stopped.

        Raises:
            DataError: if data are missing.
            TrainingDiverged: if the loss is no finite number.
        """
        if not self.prepared:
            self.check()
            self.weights.train(on_progress)

    def evaluate(self, genotypes: Sequence[Genotype]) -> list[Evaluation]:
        """Rows of the genotypes; each one's seconds are its share of the pass it was part of."""
        return self.weights.rate(genotypes)

    def work(self) -> Work:
        settings, (num_train, num_validation) = self.settings, self.workload.num_examples()
        paths = max(1, settings.random_paths + 2 * settings.sandwich)
        return Work(
            first_trained=paths * settings.recipe.epochs * num_train,
            each_run=num_validation + settings.calibration_examples,
        )

    @cached_property
    def weights(self) -> "SupernetWeights":
        from nas_core.scoring.supernet_weights import SupernetWeights

        return SupernetWeights(self)
