"""The train scorer: every network from scratch with a short recipe, rated on the validation split."""

import itertools
import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pydantic import Field

from nas_core.base.identity import evaluation_seed
from nas_core.base.settings import Section
from nas_core.records.evaluations import Epoch, Evaluation
from nas_core.scoring.scorer import SCORERS, OnProgress, Scorer, Work
from nas_core.space.genotypes import Genotype
from nas_core.training.settings import Recipe
from nas_core.workloads.workload import metric_of

if TYPE_CHECKING:
    from torch import nn

    from nas_core.workloads.workload import Splits

log = logging.getLogger(__name__)


@SCORERS.add
class TrainScorer(Scorer):
    """Trains each network from scratch with a short recipe; minutes each.

    Weights, order of examples and augmentation follow from the study's seed and the genotype.
    """

    name = "train"
    runs_networks = True
    version = 2
    placement = frozenset({"batch", "validate_epochs"})
    duration = "minutes"

    class Settings(Section):
        recipe: Recipe = Field(Recipe(), description="The short recipe.")
        validate_epochs: int = Field(
            1,
            ge=0,
            le=10_000,
            description="Epochs from one measurement on the validation split to the next, kept as a learning curve; "
            "0: only after the last.",
        )
        batch: int = Field(1, ge=1, le=1000, description="Networks per Ray task.")

    @property
    def identity(self) -> dict[str, Any]:
        return {**super().identity, "recipe": self.settings.recipe.identity}

    def check(self, stored: Sequence[Evaluation] = ()) -> None:
        self.workload.check()
        self.settings.recipe.check("scorer.recipe")

    def prepare(self, on_progress: OnProgress) -> None:
        """Raises DataError if data are missing; there is nothing else to do."""
        self.workload.check()

    def evaluate(self, genotypes: Sequence[Genotype]) -> list[Evaluation]:
        for genotype in genotypes:
            self._examples(genotype)  # missing data are no network's failure
        return [self._evaluate(genotype) for genotype in genotypes]

    def work(self) -> Work:
        recipe, (num_train, num_validation) = self.settings.recipe, self.workload.num_examples()
        every = 1 if recipe.watches_metric else self.settings.validate_epochs
        measured = 1 + (math.ceil(recipe.epochs) // every if every else 0)
        return Work(each_trained=recipe.epochs * num_train, each_run=measured * num_validation)

    def _examples(self, genotype: Genotype) -> "Splits":
        space = self.family.space
        shape = self.workload.sample.shape_at(space.resolution_of(genotype), space.in_channels)
        kept: dict[tuple[int, ...], Splits] = self.__dict__.setdefault("_kept", {})
        if shape not in kept:
            kept[shape] = self.workload.load(shape)
        return kept[shape]

    def _evaluate(self, genotype: Genotype) -> Evaluation:
        began = time.perf_counter()
        try:
            metric, num_examples, message = self._measured(genotype)
        except Exception as error:  # whatever goes wrong with one network is that network's row
            log.warning("genotype %s failed: %s", genotype, error)
            return self.rows.failed(genotype, error, time.perf_counter() - began)
        return self.rows.ok(genotype, metric, num_examples, time.perf_counter() - began, message)

    def _measured(self, genotype: Genotype) -> tuple[float, int, str]:
        """The metric, number of examples it is of, and what is worth noting of the training."""
        import torch

        from nas_core.training.loop import measure, train
        from nas_core.training.optimizers import Monitor

        seed = evaluation_seed(self.setting.seed, genotype)
        network = self.family.module(genotype, torch.Generator().manual_seed(seed))
        examples, device = self._examples(genotype), self.setting.device
        metric = metric_of(self.workload, self.setting.metric)

        def value_of(trained: "nn.Module") -> float:
            return measure(
                trained, metric, examples.validation, examples.prepare, device=device, workload=self.workload
            )

        result = train(
            network,
            self.settings.recipe,
            examples,
            self.workload,
            seed=seed,
            device=device,
            validate=self._validate(value_of),
            monitor=Monitor(name="metric", higher_is_better=metric.higher_is_better),
        )
        value = value_of(network)
        if self.setting.store is not None:
            self.store.add_epochs([self._epoch(genotype, row) for row in result.history])
        message = "batch split in two: it did not fit into memory" if result.was_split else ""
        return value, len(examples.validation[1]), message

    def _validate(self, value_of: "Callable[[nn.Module], float]") -> "Callable[[nn.Module], Mapping[str, float]]":
        """What is measured at the end of each epoch; at every end where the recipe goes by it."""
        from nas_core.training.loop import TrainingDiverged

        watches, calls = self.settings.recipe.watches_metric, itertools.count(1)
        every = 1 if watches else self.settings.validate_epochs

        def validate(network: "nn.Module") -> Mapping[str, float]:
            if not every or next(calls) % every:
                return {}
            try:
                return {"metric": value_of(network)}
            except TrainingDiverged:  # of an early epoch: the last one decides
                if watches:
                    raise
                return {}

        return validate

    def _epoch(self, genotype: Genotype, row: Mapping[str, float]) -> Epoch:
        return Epoch(
            space_id=self.family.space.space_id,
            scorer_id=self.scorer_id,
            genotype=str(genotype),
            seed=self.setting.seed,
            epoch=int(row["epoch"]),
            step=int(row["step"]),
            lr=row["lr"],
            loss=row["loss"],
            metric=row.get("metric"),
            metric_name=self.metric_name,
        )
