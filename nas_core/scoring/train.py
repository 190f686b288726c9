"""The train scorer: every network from scratch with a short recipe, rated by validation accuracy."""

import logging
import time
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING

from nas_core.base.identity import evaluation_seed
from nas_core.records.evaluations import Evaluation
from nas_core.scoring import OnProgress, study_scorer_id
from nas_core.scoring.scored_rows import Rows
from nas_core.scoring.settings import TrainScorerConfig
from nas_core.space.genotypes import Genotype, SearchSpace
from nas_core.training.loop import device_name, evaluate_accuracy, resolve_device, train
from nas_core.training.network import build_network
from nas_core.workloads.images import ImageData, check_data, load_data

if TYPE_CHECKING:
    from nas_core.study.config import StudyConfig

log = logging.getLogger(__name__)


class TrainScorer:
    """Weights, order of images and augmentation follow from the study's seed and the genotype."""

    metric_name = "validation_accuracy"
    higher_is_better = True
    split = "validation"

    def __init__(self, config: "StudyConfig", space: SearchSpace, device: str = "auto") -> None:
        assert isinstance(config.scorer, TrainScorerConfig)
        self.study, self.recipe, self.space = config, config.scorer.recipe, space
        self.device = resolve_device(device)
        self._data: dict[int, ImageData] = {}

    @cached_property
    def rows(self) -> Rows:
        return Rows(
            space_id=self.space.space_id,
            scorer_id=study_scorer_id(self.study),
            seed=self.study.seed,
            metric_name=self.metric_name,
            higher_is_better=self.higher_is_better,
            split=self.split,
            device=device_name(self.device),
        )

    @property
    def prepared(self) -> bool:
        return True

    def prepare(self, on_progress: OnProgress) -> None:
        """Raises DataError if images are missing; there is nothing else to do."""
        check_data(self.study.data)

    def evaluate(self, genotypes: Sequence[Genotype]) -> list[Evaluation]:
        for genotype in genotypes:
            self._images(self.space.resolution_of(genotype))  # missing data is no network's failure
        return [self._evaluate(genotype) for genotype in genotypes]

    def _images(self, resolution: int) -> ImageData:
        if resolution not in self._data:
            self._data[resolution] = load_data(self.study.data, resolution, self.space.in_channels)
        return self._data[resolution]

    def _evaluate(self, genotype: Genotype) -> Evaluation:
        began = time.perf_counter()
        try:
            metric, num_examples, message = self._validation_accuracy(genotype)
        except Exception as error:  # whatever goes wrong with one network is that network's row
            log.warning("genotype %s failed: %s", genotype, error)
            return self.rows.failed(genotype, error, time.perf_counter() - began)
        return self.rows.ok(genotype, metric, num_examples, time.perf_counter() - began, message)

    def _validation_accuracy(self, genotype: Genotype) -> tuple[float, int, str]:
        """Accuracy, number of images it is the mean of, and what is worth noting of the training."""
        seed = evaluation_seed(self.study.seed, genotype)
        network = build_network(self.space.architecture(genotype), seed)
        data = self._images(self.space.resolution_of(genotype))
        result = train(
            network,
            self.recipe,
            data.train_images,
            data.train_labels,
            normalise=data.normalisation,
            seed=seed,
            device=self.device,
        )
        metric = evaluate_accuracy(
            network, data.validation_images, data.validation_labels, normalise=data.normalisation, device=self.device
        )
        message = "batch split in two: it did not fit into memory" if result.parts > 1 else ""
        return metric, len(data.validation_labels), message
